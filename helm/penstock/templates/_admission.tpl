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

{{- define "penstock.admission.sidecar" -}}
{{- $host := include "penstock.host" (list . "admission") -}}
image: {{ include "penstock.imageOf" (list . .Values.agentImage) }}
pullPolicy: {{ .Values.agentImage.pullPolicy }}
brokerUrl: {{ include "penstock.agentsUrl" . }}
audience: {{ .Values.cluster.audience | quote }}
trustConfigMap: {{ include "penstock.fullname" . }}-trust
user: {{ .Values.securityContext.runAsUser }}
names: [{{ $host }}, {{ $host }}.{{ .Values.cluster.domain }}]
cpuRequest: {{ .Values.admission.sidecar.cpuRequest }}
memoryRequest: {{ .Values.admission.sidecar.memoryRequest }}
memoryLimit: {{ .Values.admission.sidecar.memoryLimit }}
{{- end -}}
