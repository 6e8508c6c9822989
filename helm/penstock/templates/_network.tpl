{{/* What pods reach.  Neither name servers nor an API server can be told by labels in every cluster. */}}

{{- define "penstock.egress.dns" -}}
# Name servers.
- ports:
    {{- range .Values.networkPolicy.egress.dnsPorts }}
    - { port: {{ . }}, protocol: UDP }
    - { port: {{ . }}, protocol: TCP }
    {{- end }}
{{- end -}}

{{- define "penstock.egress" -}}
{{ include "penstock.egress.dns" . }}
# The API server.
- ports:
    {{- range .Values.networkPolicy.egress.apiServerPorts }}
    - { port: {{ . }}, protocol: TCP }
    {{- end }}
{{- end -}}
