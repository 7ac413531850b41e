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
has it: a dict of root, the context with the values above, and of the name of
the container that writes, by which its script is found.
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
        {{- include (printf "s3daemon.example.%s" .name) $root | nindent 8 }}
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

{{- define "s3daemon.example.writer" -}}
# A file is written under another name, so that it is whole when it is pushed, and
# deleted when the store has it. What could not be pushed is pushed the next time.
trap 'exit 0' TERM
while true; do
  name=$(date -u +%Y%m%dT%H%M%SZ).txt
  date > "/data/$name.part" && mv "/data/$name.part" "/data/$name"
  for file in /data/*.txt; do
    send -label "$POD" "$file" "s3://$BUCKET/s3daemon-example/$POD/" && rm "$file"
  done
  sleep "$INTERVAL" & wait $!
done
{{- end }}

{{- define "s3daemon.example.test" -}}
# One file, all the way to the store.
set -e
date > /data/s3daemon-test
send /data/s3daemon-test "s3://$BUCKET/s3daemon-example/test"
echo "s3://$BUCKET/s3daemon-example/test is there"
{{- end }}
