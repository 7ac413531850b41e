{{- /*
s3daemon.example.values are the values of the example's pods: the chart's own, but
for what the writer's chart would have said. Data and journal are on one volume.
*/ -}}
{{- define "s3daemon.example.values" -}}
{{- $values := deepCopy .Values -}}
{{- $_ := set $values.send "install" true -}}
{{- $_ = set $values.sidecar "dataMounts" (list (dict "name" "data" "mountPath" "/data")) -}}
{{- $_ = set $values.journal "in" "volume" -}}
{{- $_ = set $values.journal "volume" "data" -}}
{{- if not (hasKey $values.podSecurityContext "fsGroup") -}}
{{- $_ = set $values.podSecurityContext "fsGroup" 65532 -}}
{{- end -}}
{{- toYaml $values -}}
{{- end }}

{{- /*
s3daemon.example.pod is the spec of a pod with the sidecar, as any writer's chart
has it: a dict of root, the context with the values above, of the script that is
the writer, of its name, and of what else the spec has.
*/ -}}
{{- define "s3daemon.example.pod" -}}
{{- $root := .root -}}
{{- include "s3daemon.ownPod" $root }}
terminationGracePeriodSeconds: {{ include "s3daemon.terminationGracePeriodSeconds" $root }}
securityContext:
  {{- include "s3daemon.podSecurityContext" $root | nindent 2 }}
initContainers:
  {{- include "s3daemon.initContainers" $root | nindent 2 }}
containers:
  {{- with include "s3daemon.containers" $root }}
  {{- . | nindent 2 }}
  {{- end }}
  - name: {{ .name }}
    image: {{ $root.Values.example.image | quote }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    securityContext:
      {{- toYaml $root.Values.securityContext | nindent 6 }}
    command:
      - sh
      - -c
      - |
        {{- .script | trim | nindent 8 }}
    env:
      - name: POD
        valueFrom:
          fieldRef:
            fieldPath: metadata.name
      - name: PATH
        value: {{ printf "%s:/usr/local/bin:/usr/bin:/bin" $root.Values.send.mountPath | quote }}
      - name: BUCKET
        value: {{ $root.Values.example.bucket | quote }}
      - name: INTERVAL
        value: {{ include "s3daemon.text" $root.Values.example.intervalSeconds | quote }}
      {{- include "s3daemon.writerEnv" $root | nindent 6 }}
    {{- include "s3daemon.sendResources" $root | nindent 4 }}
    volumeMounts:
      - name: data
        mountPath: /data
      {{- include "s3daemon.writerVolumeMounts" $root | nindent 6 }}
volumes:
  {{- include "s3daemon.volumes" $root | nindent 2 }}
{{- end }}
