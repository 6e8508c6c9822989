{{/* What the admission process is told, and the sidecar that keeps its own certificate. */}}

{{- define "penstock.admission.config" -}}
{{- $fullname := include "penstock.fullname" . -}}
apiVersion: penstock.dev/v1
kind: Admission
cluster: {{ .Values.cluster.name }}
namespace: {{ .Release.Namespace }}
annotation_prefix: {{ .Values.admission.annotationPrefix }}
listen:
  webhook: 0.0.0.0:9443
  metrics: 0.0.0.0:9402
  certificate: /var/run/penstock/tls/tls.crt
  key: /var/run/penstock/tls/tls.key
broker:
  url: {{ include "penstock.operatorsUrl" . }}
  anchors: /var/run/penstock/trust/ca.crt
  token: file:/var/run/secrets/penstock-operators/token
  # A second less than the API server waits, and another for what comes after.
  timeout: {{ max 1 (sub (int .Values.admission.timeoutSeconds) 3) }}s
kubernetes:
  server: {{ .Values.cluster.server }}
  token: file:/var/run/secrets/kubernetes.io/serviceaccount/token
  ca_bundle: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
trust:
  source: {{ $fullname }}-trust
  copy: {{ .Values.admission.trustConfigMap }}
webhooks:
  mutating: {{ .Release.Namespace }}-{{ $fullname }}-admission
  {{- if .Values.admission.validatePolicies }}
  validating: {{ .Release.Namespace }}-{{ $fullname }}-admission
  {{- end }}
{{- if .Values.admission.validatePolicies }}
policies:
  config: /etc/penstock/config/penstock.yaml
  config_map: {{ include "penstock.configMapName" . }}
{{- end }}
sidecar:
  image: {{ include "penstock.imageOf" (list . .Values.agentImage) }}
  pull_policy: {{ .Values.agentImage.pullPolicy }}
  broker_url: {{ include "penstock.agentsUrl" . }}
  audience: {{ .Values.cluster.audience | quote }}
  token_lifetime: 1h
  cpu_request: {{ .Values.admission.sidecar.cpuRequest }}
  memory_request: {{ .Values.admission.sidecar.memoryRequest }}
  memory_limit: {{ .Values.admission.sidecar.memoryLimit }}
  start_within: {{ .Values.admission.sidecar.startWithin }}
  metrics_port: {{ .Values.admission.sidecar.metricsPort }}
{{- end -}}

{{/* The names of the webhooks, as the API server knows them: short and long. */}}
{{- define "penstock.admission.names" -}}
{{- $host := include "penstock.host" (list . "admission") -}}
{{- list $host (printf "%s.%s" $host .Values.cluster.domain) | toJson -}}
{{- end -}}

{{/*
The rule by which the admission process has its own certificate.  It stands before cluster.rules, for
without that certificate no pod is made in a namespace that opted in, whatever somebody writes there.
Whom it belongs to is as in the rule that would fit otherwise, or, where none would, in the first.
*/}}
{{- define "penstock.admission.rule" -}}
{{- $account := include "penstock.admission.serviceAccountName" . -}}
{{- $rules := tpl (toYaml .Values.cluster.rules) . | fromYamlArray -}}
{{- $alike := pick (default dict (first $rules)) "community" -}}
{{- range $rule := reverse $rules -}}
{{- $hasNamespace := or (has "*" $rule.namespaces) (has $.Release.Namespace $rule.namespaces) -}}
{{- if and $hasNamespace (or (has "*" $rule.service_accounts) (has $account $rule.service_accounts)) -}}
{{- $alike = pick $rule "community" "profiles" "shared_with" "owner" "contact" -}}
{{- end -}}
{{- end -}}
{{- $own := dict "namespaces" (list .Release.Namespace) "service_accounts" (list $account) -}}
{{- $_ := set $own "names" (include "penstock.admission.names" . | fromJsonArray) -}}
{{- list (merge $own $alike) | toYaml -}}
{{- end -}}

{{- define "penstock.admission.sidecar" -}}
image: {{ include "penstock.imageOf" (list . .Values.agentImage) }}
pullPolicy: {{ .Values.agentImage.pullPolicy }}
brokerUrl: {{ include "penstock.agentsUrl" . }}
audience: {{ .Values.cluster.audience | quote }}
trustConfigMap: {{ include "penstock.fullname" . }}-trust
user: {{ .Values.securityContext.runAsUser }}
names: {{ include "penstock.admission.names" . }}
cpuRequest: {{ .Values.admission.sidecar.cpuRequest }}
memoryRequest: {{ .Values.admission.sidecar.memoryRequest }}
memoryLimit: {{ .Values.admission.sidecar.memoryLimit }}
{{- end -}}
