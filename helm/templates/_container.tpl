{{- /*
s3daemon.daemon is the daemon's container, wherever it runs:
  root         the chart's context
  listen       S3DAEMON_LISTEN
  roots        directories that files are read from
  dataDir      that of the journal
  drain        drain.what, where the values do not say
  env          further variables: a list of name and value
  mounts       its volume mounts beside those of every daemon
  restartPolicy  Always in an init container that stays
  waitSeconds  how long it has others end before it, in an ordinary container
*/ -}}
{{- define "s3daemon.daemon" -}}
{{- $values := .root.Values -}}
- name: s3daemon
  {{- include "s3daemon.container" .root | nindent 2 }}
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  env:
    {{- include "s3daemon.env" . | nindent 4 }}
  {{- if $values.ops.enabled }}
  ports:
    - name: s3daemon-ops
      containerPort: {{ $values.ops.port }}
  {{- end }}
  {{- include "s3daemon.probes" .root | nindent 2 }}
  {{- with .waitSeconds }}
  {{- include "s3daemon.waitForWriter" . | nindent 2 }}
  {{- end }}
  {{- with include "s3daemon.resources" .root }}
  resources:
    {{- . | nindent 4 }}
  {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    {{- include "s3daemon.mounts" . | nindent 4 }}
{{- end }}

{{- /* s3daemon.container is what all containers of the image have in common. */ -}}
{{- define "s3daemon.container" -}}
image: {{ include "s3daemon.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end }}

{{- /*
s3daemon.waitForWriter: ordinary containers get SIGTERM with the writer, and the
daemon is to go on until the writer has ended.
*/ -}}
{{- define "s3daemon.waitForWriter" -}}
lifecycle:
  preStop:
    exec:
      command: [/s3daemon, sleep, {{ printf "%ds" (int .) }}]
{{- end }}

{{- define "s3daemon.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.longLink.enabled -}}
{{- $_ := set $resources "limits" (merge (dict "memory" .Values.longLink.memory) (default dict $resources.limits)) -}}
{{- end -}}
{{- with $resources }}{{ toYaml . }}{{ end -}}
{{- end }}

{{- define "s3daemon.probes" -}}
{{- $probes := dict -}}
{{- range $name := list "startup" "readiness" "liveness" -}}
{{- $ready := eq $name "readiness" -}}
{{- $ask := dict "exec" (dict "command" (ternary (list "/s3daemon" "healthcheck" "ready") (list "/s3daemon" "healthcheck") $ready)) -}}
{{- if eq $.Values.probes.by "http" -}}
{{- $ask = dict "httpGet" (dict "path" (ternary "/readyz" "/healthz" $ready) "port" "s3daemon-ops") -}}
{{- end -}}
{{- $_ := set $probes (printf "%sProbe" $name) (merge $ask (get $.Values.probes $name)) -}}
{{- end -}}
{{- toYaml $probes -}}
{{- end }}
