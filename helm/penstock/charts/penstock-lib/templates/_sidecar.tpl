{{/*
The sidecar of Penstock for pods whose chart writes it itself.  It is the text that the admission
process puts into pods by annotation (broker/admission/sidecar.py); a test compares both.

  initContainers:          # it has to be the first of them
    {{- include "penstock.sidecar.container" $sidecar | nindent 4 }}
  containers:
    - volumeMounts:
        {{- include "penstock.sidecar.mount" $sidecar | nindent 8 }}
  volumes:
    {{- include "penstock.sidecar.volumes" $sidecar | nindent 4 }}

`$sidecar` is a dict of:

  image            required  the agent's image
  brokerUrl        required  https://penstock-agents.penstock.svc:8445
  names            required  what the certificate is for
  user             required  number of the user that the application runs as: its key is that user's alone
  group                      its group; without it the same number
  pullPolicy                 IfNotPresent
  audience                   of the pod's token: penstock
  tokenSeconds               how long a token lives: 3600
  trustConfigMap             ConfigMap with the roots, in the pod's namespace: penstock-trust
  profile                    of the policy; without it the policy's own choice
  key                        ec-p256, ec-p384, rsa-2048, rsa-3072, rsa-4096
  layout                     kubernetes, pem, combined
  path                       where the application finds the files: /var/run/penstock/tls
  reload                     {signal: HUP, program: /usr/sbin/nginx}; the pod has to share its processes
  look                       host:port that is seen to serve the certificate
  metricsPort                0: none
  cpuRequest, memoryRequest, memoryLimit, startWithinSeconds
*/}}

{{- define "penstock.sidecar.container" -}}
{{- $metrics := int (default 0 .metricsPort) -}}
- name: penstock-agent
  image: {{ required "penstock.sidecar: image is missing" .image }}
  imagePullPolicy: {{ default "IfNotPresent" .pullPolicy }}
  restartPolicy: Always
  args: [run, --config, "env:PENSTOCK_AGENT_CONFIG", --log-format, json]
  env:
    - name: PENSTOCK_AGENT_CONFIG
      value: |
        {{- include "penstock.sidecar.file" . | nindent 8 }}
  startupProbe:
    exec:
      command: [/usr/local/bin/penstock-agent, ready, --config, "env:PENSTOCK_AGENT_CONFIG", --wait, "20"]
    periodSeconds: 1
    timeoutSeconds: 27
    # Each probe takes 21 seconds: twenty of waiting, and the one to the next.
    failureThreshold: {{ div (add (int (default 600 .startWithinSeconds)) 20) 21 }}
  resources:
    requests:
      cpu: {{ default "5m" .cpuRequest }}
      memory: {{ default "32Mi" .memoryRequest }}
    limits:
      memory: {{ default "64Mi" .memoryLimit }}
  securityContext:
    allowPrivilegeEscalation: false
    capabilities:
      drop: [ALL]
    readOnlyRootFilesystem: true
    runAsGroup: {{ int64 (default .user .group) }}
    runAsNonRoot: true
    runAsUser: {{ int64 (required "penstock.sidecar: user is missing: the number of the application's user" .user) }}
    seccompProfile:
      type: RuntimeDefault
  terminationMessagePolicy: FallbackToLogsOnError
  {{- if $metrics }}
  ports:
    - { name: agent-metrics, containerPort: {{ $metrics }}, protocol: TCP }
  {{- end }}
  volumeMounts:
    - { name: penstock-tls, mountPath: /var/run/penstock/tls }
    - { name: penstock-state, mountPath: /var/lib/penstock-agent }
    - { name: penstock-token, mountPath: /var/run/secrets/penstock, readOnly: true }
    - { name: penstock-trust, mountPath: /var/run/penstock/trust, readOnly: true }
{{- end -}}

{{- define "penstock.sidecar.mount" -}}
- name: penstock-tls
  mountPath: {{ default "/var/run/penstock/tls" .path }}
  readOnly: true
{{- end -}}

{{- define "penstock.sidecar.volumes" -}}
- name: penstock-tls
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
- name: penstock-state
  emptyDir: { medium: Memory, sizeLimit: 8Mi }
- name: penstock-token
  projected:
    sources:
      - serviceAccountToken:
          audience: {{ default "penstock" .audience | quote }}
          expirationSeconds: {{ int (default 3600 .tokenSeconds) }}
          path: token
- name: penstock-trust
  configMap:
    name: {{ default "penstock-trust" .trustConfigMap }}
    # A pod waits, and an event says for what, until the roots are there.
    items:
      - { key: ca.crt, path: ca.crt }
{{- end -}}

{{/* The agent's own file, as TOML. */}}
{{- define "penstock.sidecar.file" -}}
{{- $port := int (default 0 .metricsPort) -}}
[node]
state = "/var/lib/penstock-agent"
allowed = ["/var/run/penstock/tls"]
metrics = {{ include "penstock.sidecar.quote" (ternary (printf "0.0.0.0:%d" $port) "" (gt $port 0)) }}
workers = 1
[broker]
url = {{ include "penstock.sidecar.quote" (required "penstock.sidecar: brokerUrl is missing" .brokerUrl) }}
anchors = "/var/run/penstock/trust/ca.crt"
[enrol]
method = "kubernetes"
credential = "file:/var/run/secrets/penstock/token"
[[certificate]]
name = "pod"
{{- $names := list }}
{{- range (required "penstock.sidecar: names is missing: what the certificate is for" .names) }}
{{- $names = append $names (include "penstock.sidecar.quote" .) }}
{{- end }}
names = [{{ join ", " $names }}]
{{- with .profile }}
profile = {{ include "penstock.sidecar.quote" . }}
{{- end }}
[certificate.key]
kind = {{ include "penstock.sidecar.quote" (default "ec-p256" .key) }}
[certificate.files]
layout = {{ include "penstock.sidecar.quote" (default "kubernetes" .layout) }}
directory = "/var/run/penstock/tls"
[certificate.expects]
anchors = "/var/run/penstock/trust/ca.crt"
{{- with .reload }}
[certificate.reload]
signal = {{ include "penstock.sidecar.quote" (required "penstock.sidecar: reload.signal is missing" .signal) }}
process = {{ include "penstock.sidecar.quote" (required "penstock.sidecar: reload.program is missing" .program) }}
absent = "pass"
{{- end }}
{{- with .look }}
[certificate.look]
connect = {{ include "penstock.sidecar.quote" . }}
first = "pass"
{{- end }}
{{ end -}}

{{/* A string of TOML.  What would have to be escaped is no name, path or URL, and refused. */}}
{{- define "penstock.sidecar.quote" -}}
{{- if not (regexMatch "^[A-Za-z0-9 _.:/*@+=,\\[\\]-]*$" .) -}}
{{- fail (printf "penstock.sidecar: %q has a sign that no name, path or URL has" .) -}}
{{- end -}}
{{- printf "\"%s\"" . -}}
{{- end -}}
