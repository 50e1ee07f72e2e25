{{/*
The values as the server reads them: what Helm merged, and what differs in a pod. A default that cannot work in a pod is
replaced; whatever else somebody chose stays.
*/}}
{{- define "tms.values" -}}
{{- $values := omit (deepCopy .Values) "global" }}
{{- $server := $values.server }}
{{- include "tms.spellings" $server.autoscaling }}
{{- include "tms.labelsTakenAway" $server.autoscaling.prometheus }}
{{- if not $values.kubernetes.namespace }}
{{- $_ := set $values.kubernetes "namespace" .Release.Namespace }}
{{- end }}
{{- if eq $server.apiService.address "127.0.0.1" }}
{{- $_ := set $server.apiService "address" "0.0.0.0" }}
{{- end }}
{{- if and (include "tms.metrics" .) (hasPrefix "127.0.0.1:" $server.metrics.listen) }}
{{- $_ := set $server.metrics "listen" (printf "0.0.0.0:%s" (include "tms.metrics" .)) }}
{{- end }}
{{- if include "tms.certificate" . }}
{{- $_ := set $server.tls "certificateFile" "/etc/tms-tls/tls.crt" }}
{{- $_ := set $server.tls "keyFile" "/etc/tms-tls/tls.key" }}
{{- end }}
{{- if $server.tls.clientCaSecretName }}
{{- $_ := set $server.tls "clientCaFile" "/etc/tms-client-ca/ca.crt" }}
{{- end }}
{{- $_ := set $server.apiService "healthPort" (include "tms.health" . | int) }}
{{- if eq $server.database.url "sqlite://tms.db" }}
{{- $_ := set $server.database "url" "sqlite:///var/lib/tms/tms.db" }}
{{- end }}
{{- if $server.database.passwordSecret.name }}
{{- $_ := set $server.database "passwordFile" "/etc/tms-database/password" }}
{{- end }}
{{- $_ := set $server.cluster "kind" (include "tms.clusterKind" .) }}
{{- $_ := set $server.autoscaling.builtin "serviceName" (include "tms.customMetrics" .) }}
{{- $values | toYaml }}
{{- end }}

{{/*
Helm puts a key in another spelling beside the default of the same key, where the server would find two that differ. Each
default is false, so true is what somebody wrote.
*/}}
{{- define "tms.spellings" -}}
{{- if hasKey . "enabled" }}
{{- if not .enable }}{{ $_ := set . "enable" .enabled }}{{ $_ := unset . "enabled" }}{{ end }}
{{- end }}
{{- range .metrics }}
{{- if and (kindIs "map" .) (hasKey . "enable") }}
{{- if not .enabled }}{{ $_ := set . "enabled" .enable }}{{ $_ := unset . "enable" }}{{ end }}
{{- end }}
{{- end }}
{{- if hasKey .prometheus "ruleLables" }}
{{- $_ := set .prometheus "ruleLabels" (mergeOverwrite .prometheus.ruleLabels .prometheus.ruleLables) }}
{{- $_ := unset .prometheus "ruleLables" }}
{{- end }}
{{- end }}

{{/* Helm takes a label away that is null; the server, which has the default again, is told so. */}}
{{- define "tms.labelsTakenAway" -}}
{{- range list .podMonitorLabels .ruleLabels }}
{{- if not (hasKey . "release") }}{{ $_ := set . "release" nil }}{{ end }}
{{- end }}
{{- end }}

{{/* Refuses what the schema cannot see and no pod could run with. Every template begins with it. */}}
{{- define "tms.check" -}}
{{- range list
  "images.server" "kubernetes"
  "server.apiService.address" "server.apiService.type"
  "server.autoscaling.builtin.listenPort" "server.autoscaling.metrics" "server.autoscaling.prometheus.podMonitorLabels" "server.autoscaling.prometheus.ruleLabels"
  "server.cluster.kind" "server.cluster.manifests.directory"
  "server.database.passwordSecret.key" "server.database.url"
  "server.doctor.clusterRights"
  "server.deployment.imagePullPolicy" "server.deployment.podLabels" "server.deployment.replicas"
  "server.metrics.alerts.labels" "server.metrics.dashboards.labels" "server.metrics.podMonitor.labels"
  "server.persistence.enabled" "server.persistence.size" "server.tls"
}}
{{- $found := $.Values }}
{{- $path := "" }}
{{- range splitList "." . }}
{{- $path = printf "%s.%s" $path . | trimPrefix "." }}
{{- if or (not (hasKey $found .)) (kindIs "invalid" (get $found .)) }}
{{- fail (printf "%s: its default is missing: null, or --reuse-values from an older chart, took it away" $path) }}
{{- end }}
{{- $found = get $found . }}
{{- end }}
{{- end }}
{{- $server := .Values.server }}
{{- $port := int $server.apiService.port }}
{{- if and (eq $server.apiService.type "NodePort") (or (lt $port 30000) (gt $port 32767)) }}
{{- fail (printf "server.apiService.port: %d: with server.apiService.type NodePort it must be from 30000 to 32767" $port) }}
{{- else if lt $port 1 }}
{{- fail "server.apiService.port: 0: a Service needs a port from 1 to 65535" }}
{{- end }}
{{- if eq $port (include "tms.health" . | int) }}
{{- fail (printf "server.apiService.healthPort: %d: must be another port than server.apiService.port" $port) }}
{{- end }}
{{- if include "tms.servesCustomMetrics" . }}
{{- $metrics := int $server.autoscaling.builtin.listenPort }}
{{- if lt $metrics 1 }}
{{- fail "server.autoscaling.builtin.listenPort: 0: a Service needs a port from 1 to 65535" }}
{{- else if or (eq $metrics $port) (eq $metrics (include "tms.health" . | int)) }}
{{- fail (printf "server.autoscaling.builtin.listenPort: %d: must be another port than server.apiService.port and healthPort" $metrics) }}
{{- end }}
{{- end }}
{{- if and (gt (int $server.deployment.replicas) 1) (include "tms.sqlite" .) }}
{{- fail (printf "server.deployment.replicas: %d: must be 1 with SQLite; set server.database.url to a PostgreSQL database for more servers" (int $server.deployment.replicas)) }}
{{- end }}
{{- if and $server.metrics.podMonitor.enabled (not (include "tms.metrics" .)) }}
{{- fail "server.metrics.podMonitor.enabled: needs server.metrics.enabled: nobody would read the figures" }}
{{- end }}
{{- if and $server.metrics.alerts.enabled (not $server.metrics.podMonitor.enabled) }}
{{- fail "server.metrics.alerts.enabled: needs server.metrics.podMonitor.enabled: nobody would read the figures" }}
{{- end }}
{{- range $name, $_ := $server.deployment.podLabels }}
{{- if hasPrefix "app.kubernetes.io/" $name }}
{{- fail (printf "server.deployment.podLabels: %s: labels of app.kubernetes.io/ are the chart's own" $name) }}
{{- end }}
{{- end }}
{{- if or $server.tls.certificateFile $server.tls.keyFile }}
{{- fail "server.tls.certificateFile, server.tls.keyFile: no such file is in the server's pod; name a Secret of type kubernetes.io/tls in server.tls.secretName" }}
{{- end }}
{{- if $server.tls.clientCaFile }}
{{- fail "server.tls.clientCaFile: no such file is in the server's pod; name a Secret with ca.crt in server.tls.clientCaSecretName" }}
{{- end }}
{{- if and $server.tls.clientCaSecretName (not (include "tms.certificate" .)) }}
{{- fail "server.tls.clientCaSecretName: clients show certificates only where server.tls.insecure is false" }}
{{- end }}
{{- if $server.database.passwordFile }}
{{- fail "server.database.passwordFile: no such file is in the server's pod; name a Secret in server.database.passwordSecret" }}
{{- end }}
{{- if $server.cluster.kubeconfig }}
{{- fail "server.cluster.kubeconfig: the server in a pod uses its ServiceAccount; remove it" }}
{{- end }}
{{- end }}
