{{- /* The command send, for writers' containers of any image. */ -}}

{{- /* s3daemon.installSend puts it into a volume. */ -}}
{{- define "s3daemon.installSend" -}}
{{- if .Values.send.install -}}
- name: s3daemon-install-send
  {{- include "s3daemon.container" . | nindent 2 }}
  command: [/send, -install, {{ .Values.send.mountPath | quote }}]
  {{- include "s3daemon.sendResources" . | nindent 2 }}
  volumeMounts:
    - name: s3daemon-bin
      mountPath: {{ .Values.send.mountPath | quote }}
{{- end }}
{{- end }}

{{- /* s3daemon.sendMount is where the writer's container has it. */ -}}
{{- define "s3daemon.sendMount" -}}
{{- if .Values.send.install -}}
name: s3daemon-bin
mountPath: {{ .Values.send.mountPath | quote }}
readOnly: true
{{- end }}
{{- end }}

{{- define "s3daemon.sendResources" -}}
{{- with .Values.send.resources -}}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "s3daemon.env.retryFor" -}}
- name: S3DAEMON_RETRY_FOR
  value: {{ .Values.send.retryFor | quote }}
{{- end }}
