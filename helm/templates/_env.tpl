{{- /*
s3daemon.env is the daemon's environment, of the same dict as s3daemon.daemon:
what the chart sets, the settings, and what else was asked for, each name once.
*/ -}}
{{- define "s3daemon.env" -}}
{{- $own := include "s3daemon.env.own" . -}}
{{- $names := list -}}
{{- range fromYamlArray $own }}{{ $names = append $names .name }}{{ end -}}
{{- range .root.Values.extraEnv }}
{{- if has .name $names }}
{{- fail (printf "extraEnv: %s is set already, by another value of the chart: change that one" .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end -}}
{{ $own }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "s3daemon.env.own" -}}
{{- $values := .root.Values -}}
- name: S3DAEMON_LISTEN
  value: {{ .listen | quote }}
- name: S3DAEMON_DATA_DIR
  value: {{ .dataDir | quote }}
{{- if not (hasKey (default dict $values.settings) "S3DAEMON_ROOTS") }}
- name: S3DAEMON_ROOTS
  value: {{ join "," .roots | quote }}
{{- end }}
- name: S3DAEMON_DRAIN
  value: {{ $values.drain.what | default .drain | quote }}
- name: S3DAEMON_DRAIN_TIMEOUT
  value: {{ printf "%ds" (int $values.drain.timeoutSeconds) | quote }}
{{- if $values.ops.enabled }}
- name: S3DAEMON_OPS_LISTEN
  value: {{ printf ":%d" (int $values.ops.port) | quote }}
{{- end }}
{{- range .env }}
- name: {{ .name }}
  value: {{ .value | quote }}
{{- end }}
{{- if not (hasPrefix "unix:" .listen) }}
{{- with include "s3daemon.env.token" .root }}
{{ . }}
{{- end }}
{{- end }}
{{- with include "s3daemon.env.store" .root }}
{{ . }}
{{- end }}
{{- range $name, $value := $values.settings }}
- name: {{ $name }}
  value: {{ include "s3daemon.text" $value | quote }}
{{- end }}
{{- end }}

{{- /*
s3daemon.journalWait: where the next pod comes while the last one drains, its daemon
waits for the journal, for so many seconds, in place of ending and being started again.
*/ -}}
{{- define "s3daemon.journalWait" -}}
name: S3DAEMON_JOURNAL_WAIT
value: {{ printf "%ds" (int .) }}
{{- end }}

{{- /* s3daemon.env.store is how the store is reached, and with what credentials. */ -}}
{{- define "s3daemon.env.store" -}}
{{- $lines := list -}}
{{- with .Values.store.endpoint }}
{{- $lines = append $lines (printf "- name: S3_ENDPOINT_URL\n  value: %s" (quote .)) }}
{{- end }}
{{- with .Values.store.region }}
{{- $lines = append $lines (printf "- name: AWS_REGION\n  value: %s" (quote .)) }}
{{- end }}
{{- with .Values.store.caBundle }}
{{- if or .configMap .secret }}
{{- $lines = append $lines (printf "- name: AWS_CA_BUNDLE\n  value: %s" (printf "/etc/s3daemon/ca/%s" .key | quote)) }}
{{- end }}
{{- end }}
{{- $credentials := .Values.credentials }}
{{- if $credentials.secret }}
{{- range $variable, $key := include "s3daemon.credentialKeys" . | fromYaml }}
{{- if eq $credentials.as "env" }}
{{- $lines = append $lines (printf "- name: %s\n  valueFrom:\n    secretKeyRef:\n      name: %s\n      key: %s" $variable (quote $credentials.secret) (quote $key)) }}
{{- else }}
{{- $lines = append $lines (printf "- name: %s_FILE\n  value: %s" $variable (printf "/etc/s3daemon/credentials/%s" $key | quote)) }}
{{- end }}
{{- end }}
{{- end }}
{{- join "\n" $lines -}}
{{- end }}

{{- /* s3daemon.credentialKeys maps the variables of the AWS SDK to the keys of the Secret. */ -}}
{{- define "s3daemon.credentialKeys" -}}
{{- with .Values.credentials.keys -}}
AWS_ACCESS_KEY_ID: {{ .accessKeyID | quote }}
AWS_SECRET_ACCESS_KEY: {{ .secretAccessKey | quote }}
{{- with .sessionToken }}
AWS_SESSION_TOKEN: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* s3daemon.env.token is for the daemon and for send alike: callers over TCP have to know it. */ -}}
{{- define "s3daemon.env.token" -}}
{{- with .Values.token -}}
{{- if .secret -}}
- name: S3DAEMON_TOKEN_FILE
  value: {{ printf "/etc/s3daemon/token/%s" .key | quote }}
{{- end }}
{{- end }}
{{- end }}
