{{- /* What there is of the writer without s3daemon. */ -}}
{{- define "writer.labels" -}}
app.kubernetes.io/name: writer
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* writer.container, of a dict: root, and the directory that it writes to. */ -}}
{{- define "writer.container" -}}
{{- $values := .root.Values -}}
image: {{ $values.image | quote }}
imagePullPolicy: {{ $values.imagePullPolicy }}
{{- if $values.command }}
command:
  {{- toYaml $values.command | nindent 2 }}
{{- with $values.args }}
args:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- else }}
command:
  - sh
  - -euc
  - |
    {{- include (ternary "writer.job" "writer.forever" (eq $values.kind "Job")) . | nindent 4 }}
{{- end }}
securityContext:
  {{- toYaml $values.securityContext | nindent 2 }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
{{- end }}

{{- /* writer.forever removes a file when the store has it; a file that it has not is tried again. */ -}}
{{- define "writer.forever" -}}
trap exit TERM
cd {{ .directory | quote }}
while :; do
  date > "$(date +%s)-$HOSTNAME.txt"
  for file in *"-$HOSTNAME.txt"; do
    {{ include "writer.send" . }} "$file" "s3://{{ .root.Values.bucket }}/$file" && rm "$file" || echo "$file is not there yet"
  done
  sleep 30 & wait $!
done
{{- end }}

{{- /*
writer.job does not wait for each push, but for all of them before it ends: the
sure way. The label is the Job's, for a pod that retries it has another name.
*/ -}}
{{- define "writer.job" -}}
cd {{ .directory | quote }}
label=$JOB${JOB_COMPLETION_INDEX:+-$JOB_COMPLETION_INDEX}
for i in 1 2 3; do
  date > "$i-$HOSTNAME.txt"
  {{ include "writer.send" . }} -async -label "$label" "$i-$HOSTNAME.txt" "s3://{{ .root.Values.bucket }}/$i-$HOSTNAME.txt"
done
exec {{ include "writer.send" . }} -wait "$label"
{{- end }}

{{- define "writer.jobEnv" -}}
{{- if eq .Values.kind "Job" -}}
- name: JOB
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['batch.kubernetes.io/job-name']
{{- end }}
{{- end }}

{{- define "writer.send" -}}
{{ .root.Values.s3daemon.send.mountPath }}/send
{{- end }}
