{{- define "s3daemon.name" -}}
{{ .Values.nameOverride | default "s3daemon" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /*
s3daemon.fullname is what the release's own objects are called, or begin with: what
the longest of them, a StatefulSet's, adds to it leaves room for what Kubernetes
adds to that in a label.
*/ -}}
{{- define "s3daemon.fullname" -}}
{{- $name := include "s3daemon.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 44 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 44 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 44 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- /* s3daemon.labels are those of every object of the chart's own. */ -}}
{{- define "s3daemon.labels" -}}
helm.sh/chart: {{ printf "s3daemon-%s" .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "s3daemon.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* s3daemon.selectorLabels tell the pods of one component: dict "root" . "component" "node". */ -}}
{{- define "s3daemon.selectorLabels" -}}
app.kubernetes.io/name: {{ include "s3daemon.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "s3daemon.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (ternary (include "s3daemon.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "s3daemon.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{- /* s3daemon.text writes a number as a person would: those of a values file are floats. */ -}}
{{- define "s3daemon.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}
