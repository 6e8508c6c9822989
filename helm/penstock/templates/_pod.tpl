{{/* What several pods have in common. */}}

{{- define "penstock.pod.common" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
# What a pod may ask of the API server is mounted by hand, where it is needed.
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* The token for the API server and its roots, as Kubernetes itself would mount them. */}}
{{- define "penstock.pod.apiAccess" -}}
- name: api-access
  projected:
    defaultMode: 288 # 0440
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
{{- end -}}

{{/* Environment of `penstock prepare`, `penstock serve`, and `kubectl exec … -- penstock status`. */}}
{{- define "penstock.broker.env" -}}
- name: PENSTOCK_CONFIG
  value: /etc/penstock/config/penstock.yaml
# What served last, for a start beside a ConfigMap that is broken.
- name: PENSTOCK_LAST_GOOD
  value: /var/lib/penstock/last-good.json
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
For how many seconds the broker serves on after SIGTERM: until it has been found not ready twice, and
the nodes have heard; clients' 15 s come after it, and have to fit in too.
*/}}
{{- define "penstock.broker.linger" -}}
{{- $noticed := add (mul 2 (int .Values.probes.readinessPeriodSeconds)) 2 -}}
{{- max 0 (min $noticed (sub (int .Values.terminationGracePeriodSeconds) 20)) -}}
{{- end -}}

{{/* Mounts that `penstock prepare` and `penstock serve` share. */}}
{{- define "penstock.broker.mounts" -}}
- name: state
  mountPath: /var/lib/penstock
- name: config
  mountPath: /etc/penstock/config
  readOnly: true
- name: tmp
  mountPath: /tmp
- name: api-access
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- if .Values.policies.files }}
- name: policies
  mountPath: /etc/penstock/policies/{{ include "penstock.fullname" . }}-policies
  readOnly: true
{{- end }}
{{- range .Values.policies.existingConfigMaps }}
- name: policies-{{ .name }}
  mountPath: /etc/penstock/policies/{{ .name }}
  readOnly: true
{{- end }}
{{- if include "penstock.hasKeysSecret" . }}
- name: keys
  mountPath: /etc/penstock/keys
  readOnly: true
{{- end }}
{{- if ne .Values.tls.source "self" }}
- name: tls
  mountPath: /etc/penstock/tls
  readOnly: true
{{- end }}
{{- if .Values.vault.enabled }}
- name: vault-token
  mountPath: /var/run/secrets/penstock
  readOnly: true
{{- end }}
{{- range $name, $_ := .Values.secrets }}
- name: secret-{{ $name }}
  mountPath: /etc/penstock/secrets/{{ $name }}
  readOnly: true
{{- end }}
{{- range $name, $_ := .Values.files }}
- name: files-{{ $name }}
  mountPath: /etc/penstock/files/{{ $name }}
  readOnly: true
{{- end }}
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "penstock.broker.volumes" -}}
- name: config
  configMap:
    name: {{ include "penstock.configMapName" . }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{ include "penstock.pod.apiAccess" . }}
{{- if .Values.policies.files }}
- name: policies
  configMap:
    name: {{ include "penstock.fullname" . }}-policies
{{- end }}
{{- range .Values.policies.existingConfigMaps }}
- name: policies-{{ .name }}
  configMap:
    name: {{ .name }}
{{- end }}
{{- if include "penstock.hasKeysSecret" . }}
- name: keys
  secret:
    secretName: {{ include "penstock.keysSecretName" . }}
    defaultMode: 288 # 0440
    items:
      - key: {{ .Values.keys.key }}
        path: passphrase
{{- end }}
{{- if ne .Values.tls.source "self" }}
- name: tls
  secret:
    secretName: {{ ternary .Values.tls.secretName (printf "%s-tls" (include "penstock.fullname" .)) (eq .Values.tls.source "secret") }}
    defaultMode: 288 # 0440
{{- end }}
{{- if .Values.vault.enabled }}
- name: vault-token
  projected:
    defaultMode: 288 # 0440
    sources:
      - serviceAccountToken:
          path: vault-token
          audience: {{ .Values.vault.audience | quote }}
          expirationSeconds: {{ .Values.vault.expirationSeconds }}
{{- end }}
{{- range $name, $secret := .Values.secrets }}
- name: secret-{{ $name }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 288 # 0440
{{- end }}
{{- range $name, $map := .Values.files }}
- name: files-{{ $name }}
  configMap:
    name: {{ $map }}
{{- end }}
{{- if not .Values.persistence.enabled }}
- name: state
  emptyDir: {}
{{- else if .Values.persistence.existingClaim }}
- name: state
  persistentVolumeClaim:
    claimName: {{ .Values.persistence.existingClaim }}
{{- end }}
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
