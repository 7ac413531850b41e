{{- /*
What a writer's chart that has this one as a dependency puts into its pods. The
context of each is .Subcharts.s3daemon:

    initContainers:
      {{- include "s3daemon.initContainers" .Subcharts.s3daemon | nindent 8 }}

README.md has the whole pod.
*/ -}}

{{- /* s3daemon.initContainers: those that stay beside the writer, and the one that brings it send. */ -}}
{{- define "s3daemon.initContainers" -}}
{{- $containers := list -}}
{{- if .Values.sidecar.native -}}
{{- $containers = list (include "s3daemon.sidecar" .) (include "s3daemon.legacy" .) -}}
{{- end -}}
{{- $containers = append $containers (include "s3daemon.installSend" .) -}}
{{- include "s3daemon.joined" $containers -}}
{{- end }}

{{- /* s3daemon.containers: the same as ordinary containers, where clusters know no others. */ -}}
{{- define "s3daemon.containers" -}}
{{- if not .Values.sidecar.native -}}
{{- include "s3daemon.joined" (list (include "s3daemon.sidecar" .) (include "s3daemon.legacy" .)) -}}
{{- end -}}
{{- end }}

{{- /* s3daemon.volumes are those that the containers of both need. */ -}}
{{- define "s3daemon.volumes" -}}
{{- include "s3daemon.joined" (list
  (include "s3daemon.journalVolume" .)
  (include "s3daemon.secretVolumes" .)
  (include "s3daemon.tokenVolume" .)
  (include "s3daemon.sendVolume" .)
  (include "s3daemon.extraVolumes" .)) -}}
{{- end }}

{{- /* s3daemon.volumeClaimTemplate is the journal's, with journal.in=claimTemplate, for a StatefulSet. */ -}}
{{- define "s3daemon.volumeClaimTemplate" -}}
{{- with .Values.journal -}}
{{- if eq .in "claimTemplate" -}}
- metadata:
    name: s3daemon-journal
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .claimTemplate.storageClass }}
    storageClassName: {{ . | quote }}
    {{- end }}
    resources:
      requests:
        storage: {{ .claimTemplate.size }}
{{- end }}
{{- end }}
{{- end }}

{{- /*
s3daemon.terminationGracePeriodSeconds is the writer's time, then the daemon's to
deliver what is under way, then what it takes to end.
*/ -}}
{{- define "s3daemon.terminationGracePeriodSeconds" -}}
{{ add (int .Values.sidecar.writerGraceSeconds) (int .Values.drain.timeoutSeconds) 5 }}
{{- end }}

{{- /* s3daemon.writerEnv tells send where the daemon of the pod is, in the writer's container and as the old port. */ -}}
{{- define "s3daemon.writerEnv" -}}
- name: S3DAEMON_URL
  value: {{ printf "http://127.0.0.1:%d" (int .Values.sidecar.port) | quote }}
{{- with include "s3daemon.env.token" . }}
{{ . }}
{{- end }}
{{ include "s3daemon.env.retryFor" . }}
{{- end }}

{{- /* s3daemon.writerVolumeMounts bring the writer's container send, and the token that it shows. */ -}}
{{- define "s3daemon.writerVolumeMounts" -}}
{{- $mounts := list -}}
{{- with include "s3daemon.sendMount" . }}{{ $mounts = append $mounts (fromYaml .) }}{{ end -}}
{{- if .Values.token.secret }}{{ $mounts = append $mounts (include "s3daemon.tokenMount" . | fromYaml) }}{{ end -}}
{{- with $mounts }}{{ toYaml . }}{{ end -}}
{{- end }}

{{- /* s3daemon.sidecar is the daemon in a writer's pod. */ -}}
{{- define "s3daemon.sidecar" -}}
{{- include "s3daemon.checkSidecar" . -}}
{{- $roots := list -}}
{{- $mounts := list (include "s3daemon.journalMount" . | fromYaml) -}}
{{- range .Values.sidecar.dataMounts -}}
{{- $roots = append $roots .mountPath -}}
{{- $mounts = append $mounts (merge (dict "readOnly" true) .) -}}
{{- end -}}
{{- $wait := include "s3daemon.journalWait" (add (include "s3daemon.terminationGracePeriodSeconds" . | trim | int) 30) | fromYaml -}}
{{- $daemon := dict "root" . "listen" (printf "127.0.0.1:%d" (int .Values.sidecar.port)) "roots" $roots "dataDir" (include "s3daemon.journalDirectory" .) "drain" (ternary "queue" "inflight" (eq .Values.journal.in "emptyDir")) "env" (list $wait) "mounts" $mounts -}}
{{- include "s3daemon.daemon" (merge $daemon (include "s3daemon.sidecarKind" . | fromYaml)) -}}
{{- end }}

{{- /* s3daemon.sidecarKind is by what a container goes on while the writer does, and until it has ended. */ -}}
{{- define "s3daemon.sidecarKind" -}}
{{- with .Values.sidecar -}}
{{- if .native -}}
restartPolicy: Always
{{- else -}}
waitSeconds: {{ .writerGraceSeconds }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* s3daemon.legacy is send, in front of the daemon, for clients of the first s3daemon. */ -}}
{{- define "s3daemon.legacy" -}}
{{- with .Values.sidecar.legacy -}}
{{- if .enabled -}}
{{- $kind := include "s3daemon.sidecarKind" $ | fromYaml -}}
- name: s3daemon-legacy
  {{- include "s3daemon.container" $ | nindent 2 }}
  {{- with $kind.restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  command: [/send, -listen, "127.0.0.1:{{ .port }}"]
  env:
    - name: S3DAEMON_MAX_CLIENTS
      value: {{ include "s3daemon.text" .maxClients | quote }}
    {{- include "s3daemon.writerEnv" $ | nindent 4 }}
  startupProbe:
    exec:
      command: [/s3daemon, healthcheck, "127.0.0.1:{{ .port }}"]
    {{- toYaml $.Values.probes.startup | nindent 4 }}
  {{- with $kind.waitSeconds }}
  {{- include "s3daemon.waitForWriter" . | nindent 2 }}
  {{- end }}
  {{- include "s3daemon.sendResources" $ | nindent 2 }}
  terminationMessagePolicy: FallbackToLogsOnError
  {{- if $.Values.token.secret }}
  volumeMounts:
    - {{ include "s3daemon.tokenMount" $ | nindent 6 | trim }}
  {{- end }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /*
s3daemon.journalMount: of another volume of the pod all is mounted, and the daemon
makes its directory there. By a subPath Kubernetes would make it, for root alone
on volumes without fsGroup, as hostPath and NFS are.
*/ -}}
{{- define "s3daemon.journalMount" -}}
{{- with .Values.journal -}}
name: {{ ternary .volume "s3daemon-journal" (eq .in "volume") }}
mountPath: /var/lib/s3daemon
{{- end }}
{{- end }}

{{- define "s3daemon.journalDirectory" -}}
/var/lib/s3daemon
{{- with .Values.journal -}}
{{- if eq .in "volume" }}/{{ .subPath }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "s3daemon.journalVolume" -}}
{{- with .Values.journal -}}
{{- if eq .in "emptyDir" -}}
- name: s3daemon-journal
  emptyDir:
    sizeLimit: {{ .sizeLimit }}
{{- else if eq .in "claim" -}}
- name: s3daemon-journal
  persistentVolumeClaim:
    claimName: {{ .claim | quote }}
{{- end -}}
{{- end -}}
{{- end }}
