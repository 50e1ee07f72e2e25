{{/* Name of the release's objects: the release's, with "tms" in it. */}}
{{- define "tms.name" -}}
{{- $name := .Release.Name }}
{{- if not (contains "tms" $name) }}{{ $name = printf "%s-tms" $name }}{{ end }}
{{- $name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* Labels by which the server's pods are known; they never change. */}}
{{- define "tms.selector" -}}
app.kubernetes.io/name: tms-server
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "tms.labels" -}}
{{ include "tms.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.kubernetes.partOf }}
app.kubernetes.io/part-of: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Namespace of the leases. */}}
{{- define "tms.leases" -}}
{{ .Values.kubernetes.namespace | default .Release.Namespace }}
{{- end }}

{{- define "tms.account" -}}
{{ .Values.server.deployment.serviceAccountName | default (include "tms.name" .) }}
{{- end }}

{{/* "true" where the leases are in a SQLite file, otherwise nothing. */}}
{{- define "tms.sqlite" -}}
{{- if hasPrefix "sqlite:" .Values.server.database.url }}true{{ end }}
{{- end }}

{{/* Name of the Secret of the server's certificate; nothing without TLS. */}}
{{- define "tms.certificate" -}}
{{- with .Values.server.tls }}
{{- if .secretName }}{{ .secretName }}
{{- else if not .insecure }}{{ include "tms.name" $ }}-tls
{{- end }}
{{- end }}
{{- end }}

{{- define "tms.claim" -}}
{{ .Values.server.persistence.existingClaim | default (printf "%s-leases" (include "tms.name" .)) }}
{{- end }}

{{/* Port of the probes. */}}
{{- define "tms.health" -}}
{{ .Values.server.apiService.healthPort | default 8080 | int }}
{{- end }}

{{/* Port of the server's own figures; nothing where they are not served. */}}
{{- define "tms.metrics" -}}
{{- with .Values.server.metrics }}
{{- if and .enabled .listen }}{{ splitList ":" .listen | last }}{{ end }}
{{- end }}
{{- end }}

{{/* "true" where the server serves custom.metrics.k8s.io, otherwise nothing. */}}
{{- define "tms.servesCustomMetrics" -}}
{{- with .Values.server.autoscaling }}
{{- if and (eq .provider "builtin") (or .enable .enabled) (eq (include "tms.clusterKind" $) "kubernetes") }}true{{ end }}
{{- end }}
{{- end }}

{{/* "true" where `tmsctl doctor` may look outside the namespace of the leases, otherwise nothing. */}}
{{- define "tms.doctorRights" -}}
{{- if and .Values.server.doctor.clusterRights (eq (include "tms.clusterKind" .) "kubernetes") }}true{{ end }}
{{- end }}

{{/* Name of the Service of custom.metrics.k8s.io, and of the Secret of its certificate, which the server makes. */}}
{{- define "tms.customMetrics" -}}
{{ .Values.server.autoscaling.builtin.serviceName | default (printf "%s-custom-metrics" (include "tms.name" .)) }}
{{- end }}

{{/* Kind of the cluster as the server reads it: manifests only where somebody chose a directory for them. */}}
{{- define "tms.clusterKind" -}}
{{- with .Values.server.cluster }}
{{- if and (eq .kind "manifests") (eq .manifests.directory "manifests") }}kubernetes{{ else }}{{ .kind }}{{ end }}
{{- end }}
{{- end }}
