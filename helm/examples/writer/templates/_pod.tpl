{{- /*
The pod of a writer, with what it needs to have its files pushed: each include of
an "s3daemon." template, with .Subcharts.s3daemon as its context. A chart of your
own needs one of the two ways, and the kind of object that it has anyway.
*/ -}}
{{- define "writer.pod" -}}
metadata:
  labels:
    {{- include "writer.labels" . | nindent 4 }}
    {{- if eq .Values.reach "sidecar" }}
    {{- include "s3daemon.podLabels" .Subcharts.s3daemon | nindent 4 }}
    {{- end }}
spec:
  {{- if eq .Values.kind "Job" }}
  restartPolicy: Never
  {{- end }}
  enableServiceLinks: false
  automountServiceAccountToken: false
  {{- if .Values.serviceAccount.create }}
  serviceAccountName: {{ .Release.Name }}
  {{- end }}
  {{- include (printf "writer.%s" .Values.reach) . | nindent 2 }}
{{- end }}

{{- /* writer.sidecar: a daemon in each pod, which has the volumes that the writer has. */ -}}
{{- define "writer.sidecar" -}}
{{- $s3daemon := .Subcharts.s3daemon -}}
terminationGracePeriodSeconds: {{ include "s3daemon.terminationGracePeriodSeconds" $s3daemon }}
securityContext:
  {{- merge (deepCopy .Values.podSecurityContext) (include "s3daemon.podSecurityContext" $s3daemon | fromYaml) | toYaml | nindent 2 }}
{{- with include "s3daemon.initContainers" $s3daemon }}
initContainers:
  {{- . | nindent 2 }}
{{- end }}
containers:
  - name: writer
    {{- include "writer.container" (dict "root" . "directory" "/data") | nindent 4 }}
    env:
      {{- include "s3daemon.writerEnv" $s3daemon | nindent 6 }}
      {{- with include "writer.jobEnv" . }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with .Values.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    volumeMounts:
      - name: data
        mountPath: /data
      {{- include "s3daemon.writerVolumeMounts" $s3daemon | nindent 6 }}
  {{- include "s3daemon.containers" $s3daemon | nindent 2 }}
volumes:
  {{- if eq .Values.data.in "emptyDir" }}
  - name: data
    emptyDir:
      sizeLimit: {{ .Values.data.size }}
  {{- else if eq .Values.data.in "claim" }}
  - name: data
    persistentVolumeClaim:
      claimName: {{ .Values.data.claim | quote }}
  {{- end }}
  {{- include "s3daemon.volumes" $s3daemon | nindent 2 }}
{{- end }}

{{- /*
writer.node: the daemon of the node, by its socket. The files are in a directory
of the host, which both have at the same path: the one in a push is the daemon's.
*/ -}}
{{- define "writer.node" -}}
{{- $s3daemon := .Subcharts.s3daemon -}}
terminationGracePeriodSeconds: {{ $s3daemon.Values.sidecar.writerGraceSeconds }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
  supplementalGroups:
    {{- include "s3daemon.node.writerSupplementalGroups" $s3daemon | nindent 4 }}
{{- with include "s3daemon.node.writerInitContainers" $s3daemon }}
initContainers:
  {{- . | nindent 2 }}
{{- end }}
containers:
  - name: writer
    {{- include "writer.container" (dict "root" . "directory" (first $s3daemon.Values.node.dataDirectories)) | nindent 4 }}
    env:
      {{- include "s3daemon.node.writerEnv" $s3daemon | nindent 6 }}
      {{- with include "writer.jobEnv" . }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with .Values.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    volumeMounts:
      {{- include "s3daemon.node.writerVolumeMounts" $s3daemon | nindent 6 }}
volumes:
  {{- include "s3daemon.node.writerVolumes" $s3daemon | nindent 2 }}
{{- end }}

{{- /* writer.claimTemplates: data and journal, where a StatefulSet makes their claims. */ -}}
{{- define "writer.claimTemplates" -}}
{{- if eq .Values.data.in "claimTemplate" }}
- metadata:
    name: data
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .Values.data.storageClass }}
    storageClassName: {{ . | quote }}
    {{- end }}
    resources:
      requests:
        storage: {{ .Values.data.size }}
{{- end }}
{{- if eq .Values.reach "sidecar" }}
{{ include "s3daemon.volumeClaimTemplate" .Subcharts.s3daemon }}
{{- end }}
{{- end }}
