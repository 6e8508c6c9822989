{{/*
What pods reach.  Neither name servers nor an API server can be told by labels in every cluster, and
some networks match neither by address: by their ports alone, unless somebody says where they are.  A
list of ports that was taken out opens nothing.
*/}}

{{- define "penstock.egress.dns" -}}
{{- $egress := default dict .Values.networkPolicy.egress -}}
{{- with $egress.dnsPorts -}}
# Name servers.
- ports:
    {{- range . }}
    - { port: {{ . }}, protocol: UDP }
    - { port: {{ . }}, protocol: TCP }
    {{- end }}
  {{- with $egress.dnsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "penstock.egress" -}}
{{- $egress := default dict .Values.networkPolicy.egress -}}
{{ include "penstock.egress.dns" . }}
{{- with $egress.apiServerPorts }}
# The API server.
- ports:
    {{- range . }}
    - { port: {{ . }}, protocol: TCP }
    {{- end }}
  {{- with $egress.apiServerTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}
