{{- /*
One daemon a node, and what the pods of writers need to reach it: the directory
of its socket, its group, and the directories of the data, at the same paths on
both sides, since a path in a push is the daemon's. The context of each is that
of this chart; in a writer's chart it is .Subcharts.s3daemon.
*/ -}}

{{- /* s3daemon.node.writerEnv tells send, in the writer's container, where the daemon is. */ -}}
{{- define "s3daemon.node.writerEnv" -}}
- name: S3DAEMON_URL
  value: {{ include "s3daemon.node.socket" . | quote }}
{{ include "s3daemon.env.retryFor" . }}
{{- end }}

{{- define "s3daemon.node.socket" -}}
unix:{{ .Values.node.socketDirectory }}/s3daemon.sock
{{- end }}

{{- /* s3daemon.node.writerInitContainers has the container that brings the writer send. */ -}}
{{- define "s3daemon.node.writerInitContainers" -}}
{{- include "s3daemon.installSend" . -}}
{{- end }}

{{- /* s3daemon.node.writerSupplementalGroups let the writer's user open the socket. */ -}}
{{- define "s3daemon.node.writerSupplementalGroups" -}}
- {{ include "s3daemon.text" .Values.node.socketGroup }}
{{- end }}

{{- /*
s3daemon.node.writerVolumes: the socket's directory must be there, so that a
writer that comes before the daemon waits for it.
*/ -}}
{{- define "s3daemon.node.writerVolumes" -}}
- name: s3daemon-socket
  hostPath:
    path: {{ .Values.node.socketDirectory | quote }}
    type: Directory
{{ include "s3daemon.joined" (list (include "s3daemon.node.dataVolumes" .) (include "s3daemon.sendVolume" .)) }}
{{- end }}

{{- /*
s3daemon.node.writerVolumeMounts: the socket's directory read-only, for which a
writer can connect all the same. Where one may write to it, as root or as the
daemon's user, it could be taken for the daemon by all others.
*/ -}}
{{- define "s3daemon.node.writerVolumeMounts" -}}
- name: s3daemon-socket
  mountPath: {{ .Values.node.socketDirectory | quote }}
  readOnly: true
{{- range $i, $directory := .Values.node.dataDirectories }}
- name: s3daemon-data-{{ $i }}
  mountPath: {{ $directory | quote }}
{{- end }}
{{- with include "s3daemon.sendMount" . }}
- {{ nindent 2 . | trim }}
{{- end }}
{{- end }}

{{- define "s3daemon.node.dataVolumes" -}}
{{- $volumes := list -}}
{{- range $i, $directory := .Values.node.dataDirectories -}}
{{- $volumes = append $volumes (dict "name" (printf "s3daemon-data-%d" $i) "hostPath" (dict "path" $directory "type" "Directory")) -}}
{{- end -}}
{{- with $volumes }}{{ toYaml . }}{{ end -}}
{{- end }}

{{- /* s3daemon.node.volumes are those of the daemon's pod. */ -}}
{{- define "s3daemon.node.volumes" -}}
- name: s3daemon-socket
  hostPath:
    path: {{ .Values.node.socketDirectory | quote }}
    type: DirectoryOrCreate
- name: s3daemon-journal
  hostPath:
    path: {{ .Values.node.journalDirectory | quote }}
    type: DirectoryOrCreate
{{ include "s3daemon.joined" (list
  (include "s3daemon.node.dataVolumes" .)
  (include "s3daemon.secretVolumes" .)
  (include "s3daemon.extraVolumes" .)) }}
{{- end }}

{{- define "s3daemon.node.daemon" -}}
{{- $node := .Values.node -}}
{{- $mounts := list
  (dict "name" "s3daemon-socket" "mountPath" $node.socketDirectory)
  (dict "name" "s3daemon-journal" "mountPath" "/var/lib/s3daemon") -}}
{{- range $i, $directory := $node.dataDirectories -}}
{{- $mounts = append $mounts (dict "name" (printf "s3daemon-data-%d" $i) "mountPath" $directory "readOnly" true "mountPropagation" $node.mountPropagation) -}}
{{- end -}}
{{- $env := list
  (include "s3daemon.journalWait" (add (int .Values.drain.timeoutSeconds) 60) | fromYaml)
  (dict "name" "S3DAEMON_SOCKET_MODE" "value" $node.socketMode)
  (dict "name" "S3DAEMON_SOCKET_GROUP" "value" (include "s3daemon.text" $node.socketGroup)) -}}
{{- include "s3daemon.daemon" (dict "root" . "listen" (include "s3daemon.node.socket" .) "roots" $node.dataDirectories "dataDir" "/var/lib/s3daemon" "drain" "inflight" "env" $env "mounts" $mounts) -}}
{{- end }}

{{- /*
s3daemon.node.prepare gives the directories of socket and journal to the daemon:
Kubernetes makes what is missing of a host for root alone. Others may pass
through them: who may connect is the socket's mode alone, and the next prepare,
which has no right but to give away, has to find its mark in them.
*/ -}}
{{- define "s3daemon.node.prepare" -}}
{{- $root := deepCopy .Values.securityContext -}}
{{- $_ := set $root "runAsUser" 0 -}}
{{- $_ = set $root "runAsNonRoot" false -}}
{{- $_ = set $root "capabilities" (dict "drop" (list "ALL") "add" (list "CHOWN")) -}}
- name: s3daemon-prepare
  image: {{ include "s3daemon.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  securityContext:
    {{- toYaml $root | nindent 4 }}
  args:
    - prepare
    - -mode=0711
    - {{ printf "%s:%s" (include "s3daemon.text" .Values.securityContext.runAsUser) (include "s3daemon.text" .Values.node.socketGroup) | quote }}
    - {{ .Values.node.socketDirectory | quote }}
    - /var/lib/s3daemon
  {{- with include "s3daemon.resources" . }}
  resources:
    {{- . | nindent 4 }}
  {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - name: s3daemon-socket
      mountPath: {{ .Values.node.socketDirectory | quote }}
    - name: s3daemon-journal
      mountPath: /var/lib/s3daemon
{{- end }}

{{- /* s3daemon.node.podSecurityContext: the daemon has the socket's group, so that it may give that the socket. */ -}}
{{- define "s3daemon.node.podSecurityContext" -}}
{{- $context := include "s3daemon.podSecurityContext" . | fromYaml -}}
{{- $groups := concat (default list $context.supplementalGroups) (list .Values.node.socketGroup) | uniq -}}
{{- toYaml (set $context "supplementalGroups" $groups) -}}
{{- end }}

{{- /* s3daemon.node.placement says on which nodes. */ -}}
{{- define "s3daemon.node.placement" -}}
{{- $placement := dict -}}
{{- range $name := list "nodeSelector" "tolerations" "affinity" -}}
{{- with get $.Values.node $name }}{{ $_ := set $placement $name . }}{{ end -}}
{{- end -}}
{{- with $placement }}{{ toYaml . }}{{ end -}}
{{- end }}
