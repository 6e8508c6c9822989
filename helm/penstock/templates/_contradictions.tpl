{{/*
Values that contradict each other: each ends the rendering with a sentence that says which, why, and
what to do.  What a single value may be is in values.schema.json.
*/}}

{{- define "penstock.check" -}}
{{- include "penstock.check.replicas" . -}}
{{- if not .Values.existingConfigMap -}}
{{- include "penstock.check.config" . -}}
{{- include "penstock.check.own" . -}}
{{- include "penstock.check.upstreams" . -}}
{{- include "penstock.check.vault" . -}}
{{- end -}}
{{- include "penstock.check.keys" . -}}
{{- include "penstock.check.tls" . -}}
{{- include "penstock.check.anchors" . -}}
{{- include "penstock.check.cluster" . -}}
{{- include "penstock.check.rest" . -}}
{{- end -}}

{{- define "penstock.check.replicas" -}}
{{- if ne .Values.store.kind "sqlite" -}}
{{- fail (printf "store.kind is %s, and there is no such store yet: leave it at sqlite" .Values.store.kind) -}}
{{- end -}}
{{- if ne (int .Values.replicaCount) 1 -}}
{{- fail (printf "replicaCount is %v: the store is one SQLite file on one volume, and two brokers with it would order twice; leave it at 1" .Values.replicaCount) -}}
{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (eq (int .Values.podDisruptionBudget.maxUnavailable) 0) -}}
{{- fail "podDisruptionBudget.maxUnavailable is 0: with one replica no node that it is on could ever be drained; set it to 1" -}}
{{- end -}}
{{- end -}}

{{- define "penstock.check.config" -}}
{{- $config := .Values.config -}}
{{- range $key := list "state" "policies" -}}
{{- if hasKey $config $key -}}
{{- fail (printf "config.%s is where the chart mounts it: leave it out" $key) -}}
{{- end -}}
{{- end -}}
{{- $listen := default dict $config.listen -}}
{{- range $name, $listener := $listen -}}
{{- if hasKey (default dict $listener) "address" -}}
{{- fail (printf "config.listen.%s.address is the chart's, for its Services lead there: ports are under services" $name) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "certificate" "key" "from" "names" -}}
{{- if hasKey (default dict $listen.acme) $key -}}
{{- fail (printf "config.listen.acme.%s is the chart's: say under tls where the broker's certificate comes from" $key) -}}
{{- end -}}
{{- end -}}
{{- $url := get (include "penstock.config.said" . | fromYaml) "external_url" -}}
{{- if and .Values.url (ne .Values.url $url) -}}
{{- fail (printf "url is %s and config.external_url is %s: leave one of them out" .Values.url $url) -}}
{{- end -}}
{{- end -}}

{{/* What the chart says under config for the admission process, and where the roots are written. */}}
{{- define "penstock.check.own" -}}
{{- $said := include "penstock.config.said" . | fromYaml -}}
{{- if .Values.admission.enabled -}}
{{- $operators := default dict $said.operators -}}
{{- if hasKey (default dict $operators.issuers) .Values.cluster.name -}}
{{- fail (printf "config.operators.issuers.%s is the chart's, for the tokens of the admission process: call yours otherwise" .Values.cluster.name) -}}
{{- end -}}
{{- $own := printf "%s-admission" (include "penstock.fullname" .) -}}
{{- if hasKey (default dict $operators.people) $own -}}
{{- fail (printf "config.operators.people.%s is the chart's, for the admission process: call yours otherwise" $own) -}}
{{- end -}}
{{- end -}}
{{- $trust := default dict (default dict $said.publishing).trust -}}
{{- range $key := list "server" "token" "ca_bundle" "namespace" "name" -}}
{{- if hasKey $trust $key -}}
{{- fail (printf "config.publishing.trust.%s is the chart's, for pods mount the ConfigMap that it makes: leave it out" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "penstock.check.upstreams" -}}
{{- $upstreams := default dict .Values.config.upstreams -}}
{{- if .Values.prepare.enabled -}}
{{- range $name, $suffixes := .Values.prepare.cas -}}
{{- $one := get $upstreams $name -}}
{{- if ne (dig "kind" "" (default dict $one)) "built-in" -}}
{{- fail (printf "prepare.cas.%s: config.upstreams has no built-in CA of that name; set prepare.cas.%s to null" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.tls.source "self") (not (hasKey $upstreams .Values.tls.upstream)) -}}
{{- fail (printf "tls.upstream is %s, which config.upstreams does not have" .Values.tls.upstream) -}}
{{- end -}}
{{- end -}}

{{- define "penstock.check.vault" -}}
{{- $vault := .Values.config.vault -}}
{{- if and .Values.vault.enabled (not $vault) -}}
{{- fail "vault.enabled gives the broker a token for Vault, and config.vault does not say where that is" -}}
{{- end -}}
{{- $logins := list -}}
{{- range $part := list "serve" "rotate" -}}
{{- with dig $part dict (default dict $vault) -}}
{{- $logins = append $logins . -}}
{{- end -}}
{{- end -}}
{{- range $name, $mount := dig "mounts" dict (default dict $vault) -}}
{{- range $part := list "serve" "rotate" -}}
{{- with dig $part dict $mount -}}
{{- $logins = append $logins . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $logins -}}
{{- if and (eq (default "" .method) "kubernetes") (not $.Values.vault.enabled) -}}
{{- fail "config.vault logs in by Kubernetes, and no token is mounted for that: set vault.enabled" -}}
{{- end -}}
{{- if and (eq (default "" .method) "approle") (dig "is_wrapped" true .) $.Values.prepare.enabled -}}
{{- fail "config.vault logs in by a wrapped secret id, which is good once, and `penstock prepare` would use it up before the broker: set prepare.enabled to false, or log in by Kubernetes" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "penstock.check.keys" -}}
{{- $said := and (not .Values.existingConfigMap) (dig "keys" "passphrase" "" .Values.config) -}}
{{- if and $said .Values.keys.existingSecret -}}
{{- fail (printf "config.keys.passphrase is %s and keys.existingSecret is %s: leave one of them out" $said .Values.keys.existingSecret) -}}
{{- end -}}
{{- if and (not $said) (not .Values.keys.existingSecret) (not .Values.keys.generate) -}}
{{- fail "keys.generate is false and nothing says where the passphrase of the key files is: name keys.existingSecret, or give config.keys.passphrase" -}}
{{- end -}}
{{- end -}}

{{- define "penstock.check.tls" -}}
{{- $tls := .Values.tls -}}
{{- if and (eq $tls.source "secret") (not $tls.secretName) -}}
{{- fail "tls.source is secret and tls.secretName is empty" -}}
{{- end -}}
{{- if and (ne $tls.source "secret") $tls.secretName -}}
{{- fail (printf "tls.secretName is %s and tls.source is %s: set tls.source to secret, or leave the name out" $tls.secretName $tls.source) -}}
{{- end -}}
{{- if and (eq $tls.source "certManager") (not $tls.certManager.issuerName) -}}
{{- fail "tls.source is certManager and tls.certManager.issuerName is empty" -}}
{{- end -}}
{{- if and (ne $tls.source "certManager") $tls.certManager.issuerName -}}
{{- fail (printf "tls.certManager.issuerName is %s and tls.source is %s: set tls.source to certManager, or leave the name out" $tls.certManager.issuerName $tls.source) -}}
{{- end -}}
{{- end -}}

{{- define "penstock.check.anchors" -}}
{{- $tls := .Values.tls -}}
{{- if and (eq $tls.source "self") $tls.caKey -}}
{{- fail (printf "tls.caKey is %s and tls.source is self: the broker knows its own roots" $tls.caKey) -}}
{{- end -}}
{{- if and (ne $tls.source "self") (not $tls.caKey) .Values.cluster.enabled -}}
{{- fail (printf "tls.source is %s and tls.caKey is empty: pods would have nothing to verify the broker by; name the key of that Secret that has its roots" $tls.source) -}}
{{- end -}}
{{- end -}}

{{- define "penstock.check.cluster" -}}
{{- if and .Values.cluster.enabled (not .Values.existingConfigMap) -}}
{{- if not .Values.config.agents -}}
{{- fail "cluster.enabled lets pods enrol, and config.agents says nothing of who certifies nodes: give it identity, or set cluster.enabled to false" -}}
{{- end -}}
{{- $clusters := dig "agents" "clusters" dict (include "penstock.config.said" . | fromYaml) | default dict -}}
{{- if hasKey $clusters .Values.cluster.name -}}
{{- fail (printf "config.agents.clusters.%s and cluster.name speak of the same cluster: leave the first out, or call the second otherwise" .Values.cluster.name) -}}
{{- end -}}
{{- if eq .Values.cluster.tokens "review" -}}
{{- range $name, $one := $clusters -}}
{{- if eq (default "" $one.issuer) $.Values.cluster.issuer -}}
{{- fail (printf "config.agents.clusters.%s has the issuer of cluster.issuer, and cluster.tokens is review, which would show its tokens to this API server: set cluster.tokens to keys, or give each API server an issuer of its own" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not .Values.cluster.rules -}}
{{- fail "cluster.rules is empty: no pod could enrol; set cluster.enabled to false if that is meant" -}}
{{- end -}}
{{- end -}}
{{- if .Values.admission.enabled -}}
{{- if not .Values.cluster.enabled -}}
{{- fail "admission.enabled adds sidecars to pods, and cluster.enabled is false, so that none of them could enrol" -}}
{{- end -}}
{{- if not .Values.services.operators.enabled -}}
{{- fail "admission.enabled asks the broker by its operator API, and services.operators.enabled is false" -}}
{{- end -}}
{{- if and .Values.admission.podDisruptionBudget.enabled (ge (int .Values.admission.podDisruptionBudget.minAvailable) (int .Values.admission.replicaCount)) -}}
{{- fail (printf "admission.podDisruptionBudget.minAvailable is %v of %v replicas: no node could ever be drained" .Values.admission.podDisruptionBudget.minAvailable .Values.admission.replicaCount) -}}
{{- end -}}
{{- if eq .Values.admission.trustConfigMap "kube-root-ca.crt" -}}
{{- fail "admission.trustConfigMap is kube-root-ca.crt, which Kubernetes keeps in every namespace with the roots of its API server: give it another name" -}}
{{- end -}}
{{- if and (not .Values.admission.serviceAccount.create) (not .Values.admission.serviceAccount.name) -}}
{{- fail "admission.serviceAccount.create is false and admission.serviceAccount.name is empty" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "penstock.check.rest" -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty" -}}
{{- end -}}
{{- if and (not .Values.persistence.enabled) .Values.persistence.existingClaim -}}
{{- fail (printf "persistence.existingClaim is %s and persistence.enabled is false" .Values.persistence.existingClaim) -}}
{{- end -}}
{{- if not (or .Values.policies.files .Values.policies.existingConfigMaps) -}}
{{- fail "policies.files and policies.existingConfigMaps are both empty: nothing would be allowed" -}}
{{- end -}}
{{- $acme := .Values.services.acme -}}
{{- if and (ne $acme.type "LoadBalancer") (or $acme.loadBalancerClass $acme.loadBalancerSourceRanges) -}}
{{- fail (printf "services.acme.type is %s, and only a LoadBalancer has a class and source ranges" $acme.type) -}}
{{- end -}}
{{- end -}}
