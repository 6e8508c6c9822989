{{/*
penstock.yaml: what the values say under `config`, as a template, with what has to fit the ports,
mounts and names that the other templates make.  The chart's part wins; _contradictions.tpl has seen
to it that nothing is overruled in silence.
*/}}

{{- define "penstock.config" -}}
{{- $said := include "penstock.config.said" . | fromYaml -}}
{{- $made := include "penstock.config.made" . | fromYaml -}}
{{- mergeOverwrite $said $made | toYaml -}}
{{- end -}}

{{- define "penstock.config.said" -}}
{{- $said := tpl (toYaml .Values.config) . -}}
{{- if hasKey ($said | fromYaml) "Error" -}}
{{- fail (printf "config: what its templates give is no YAML: %s" (get ($said | fromYaml) "Error")) -}}
{{- end -}}
{{- $said -}}
{{- end -}}

{{- define "penstock.config.made" -}}
state: /var/lib/penstock
policies:
  {{- include "penstock.policyDirectories" . | nindent 2 }}
{{- if include "penstock.hasKeysSecret" . }}
keys:
  passphrase: file:/etc/penstock/keys/passphrase
{{- end }}
listen:
  acme:
    address: 0.0.0.0:8443
    {{- if eq .Values.tls.source "self" }}
    from: {{ .Values.tls.upstream }}
    names:
      {{- include "penstock.ownNames" . | nindent 6 }}
    {{- else }}
    certificate: /etc/penstock/tls/tls.crt
    key: /etc/penstock/tls/tls.key
    {{- end }}
  plain:
    address: 0.0.0.0:8080
  health:
    address: 0.0.0.0:8081
  {{- if .Values.config.agents }}
  agents:
    address: 0.0.0.0:8445
  {{- end }}
  {{- if .Values.services.operators.enabled }}
  operators:
    address: 0.0.0.0:8446
  {{- end }}
{{- if .Values.cluster.enabled }}
agents:
  clusters:
    {{ .Values.cluster.name }}:
      issuer: {{ .Values.cluster.issuer | quote }}
      audience: {{ .Values.cluster.audience | quote }}
      {{- if eq .Values.cluster.tokens "keys" }}
      keys_url: {{ .Values.cluster.server }}/openid/v1/jwks
      keys_token: file:/var/run/secrets/kubernetes.io/serviceaccount/token
      {{- else }}
      review:
        server: {{ .Values.cluster.server | quote }}
        token: file:/var/run/secrets/kubernetes.io/serviceaccount/token
      {{- end }}
      pods:
        server: {{ .Values.cluster.server | quote }}
        token: file:/var/run/secrets/kubernetes.io/serviceaccount/token
      ca_bundle: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
      rules:
        {{- if .Values.admission.enabled }}
        {{- include "penstock.admission.rule" . | nindent 8 }}
        {{- end }}
        {{- tpl (toYaml .Values.cluster.rules) . | nindent 8 }}
{{- end }}
publishing:
  trust:
    server: {{ .Values.cluster.server | quote }}
    token: file:/var/run/secrets/kubernetes.io/serviceaccount/token
    ca_bundle: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    namespace: {{ .Release.Namespace }}
    name: {{ include "penstock.fullname" . }}-trust
    {{- with .Values.tls.caKey }}
    also: {{ prepend (dig "publishing" "trust" "also" list (include "penstock.config.said" $ | fromYaml)) (printf "/etc/penstock/tls/%s" .) | toJson }}
    {{- end }}
{{- if .Values.admission.enabled }}
operators:
  issuers:
    {{ .Values.cluster.name }}:
      issuer: {{ .Values.cluster.issuer | quote }}
      audience: penstock-operators
      # What an API server signs by; it marks its tokens by no type.
      algorithms: [RS256, ES256]
      types: [none]
      keys_url: {{ .Values.cluster.server }}/openid/v1/jwks
      keys_token: file:/var/run/secrets/kubernetes.io/serviceaccount/token
      ca_bundle: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
  people:
    {{ include "penstock.fullname" . }}-admission:
      tokens: ["{{ .Values.cluster.name }}:system:serviceaccount:{{ .Release.Namespace }}:{{ include "penstock.admission.serviceAccountName" . }}"]
      roles: { "*": [admission] }
{{- end }}
{{- end -}}
