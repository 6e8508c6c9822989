{{/* Names, labels, images and addresses: each is said here once. */}}

{{- define "penstock.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters leave room for what follows: no name of ours is longer than a label may be. */}}
{{- define "penstock.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "penstock.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What never changes, for selectors: (list . "broker"). */}}
{{- define "penstock.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "penstock.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "penstock.labels" -}}
{{- $root := index . 0 -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: penstock
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* (list . .Values.image) */}}
{{- define "penstock.imageOf" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $name := printf "%s/%s" $image.registry $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "penstock.serviceAccountName" -}}
{{- default (include "penstock.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "penstock.admission.serviceAccountName" -}}
{{- default (printf "%s-admission" (include "penstock.fullname" .)) .Values.admission.serviceAccount.name -}}
{{- end -}}

{{/* The short name of a Service within the cluster: (list . "agents"). */}}
{{- define "penstock.host" -}}
{{- $root := index . 0 -}}
{{- $suffix := index . 1 -}}
{{- printf "%s%s.%s.svc" (include "penstock.fullname" $root) (ternary (printf "-%s" $suffix) "" (ne $suffix "")) $root.Release.Namespace -}}
{{- end -}}

{{- define "penstock.url" -}}
{{- default (printf "https://%s:%v" (include "penstock.host" (list . "")) .Values.services.acme.port) .Values.url -}}
{{- end -}}

{{- define "penstock.plainUrl" -}}
{{- printf "http://%s:%v" (include "penstock.host" (list . "")) .Values.services.plain.port -}}
{{- end -}}

{{- define "penstock.agentsUrl" -}}
{{- printf "https://%s:%v" (include "penstock.host" (list . "agents")) .Values.services.agents.port -}}
{{- end -}}

{{- define "penstock.operatorsUrl" -}}
{{- printf "https://%s:%v" (include "penstock.host" (list . "operators")) .Values.services.operators.port -}}
{{- end -}}

{{- define "penstock.configMapName" -}}
{{- default (printf "%s-config" (include "penstock.fullname" .)) .Values.existingConfigMap -}}
{{- end -}}

{{- define "penstock.keysSecretName" -}}
{{- default (printf "%s-keys" (include "penstock.fullname" .)) .Values.keys.existingSecret -}}
{{- end -}}

{{/* Every name by which the broker is reached, beside the host of its URL, as a list. */}}
{{- define "penstock.ownNames" -}}
{{- $names := list -}}
{{- range $service := list "" "agents" "operators" -}}
{{- $short := include "penstock.host" (list $ $service) -}}
{{- $names = concat $names (list $short (printf "%s.%s" $short $.Values.cluster.domain)) -}}
{{- end -}}
{{- concat $names .Values.tls.extraNames | uniq | toYaml -}}
{{- end -}}

{{/*
Which directories of policies the broker reads: what is made here, then what others keep.  Each is called
as its ConfigMap, for files know each other by that, and the admission process knows nothing else.
*/}}
{{- define "penstock.policyDirectories" -}}
{{- $directories := list -}}
{{- if .Values.policies.files -}}
{{- $directories = append $directories (printf "/etc/penstock/policies/%s-policies" (include "penstock.fullname" .)) -}}
{{- end -}}
{{- range .Values.policies.existingConfigMaps -}}
{{- $directories = append $directories (printf "/etc/penstock/policies/%s" .name) -}}
{{- end -}}
{{- toYaml $directories -}}
{{- end -}}

{{/* Whether the passphrase lies in a Secret: not where config says where it is. */}}
{{- define "penstock.hasKeysSecret" -}}
{{- if or .Values.existingConfigMap (not (dig "keys" "passphrase" "" .Values.config)) -}}yes{{- end -}}
{{- end -}}
