{{- /* s3daemon.mounts are the daemon's volume mounts, of the same dict as s3daemon.daemon. */ -}}
{{- define "s3daemon.mounts" -}}
{{- $values := .root.Values -}}
{{- $mounts := .mounts -}}
{{- if and $values.credentials.secret (eq $values.credentials.as "file") }}
{{- $mounts = append $mounts (dict "name" "s3daemon-credentials" "mountPath" "/etc/s3daemon/credentials" "readOnly" true) }}
{{- end }}
{{- if or $values.store.caBundle.configMap $values.store.caBundle.secret }}
{{- $mounts = append $mounts (dict "name" "s3daemon-ca" "mountPath" "/etc/s3daemon/ca" "readOnly" true) }}
{{- end }}
{{- if and $values.token.secret (not (hasPrefix "unix:" .listen)) }}
{{- $mounts = append $mounts (include "s3daemon.tokenMount" .root | fromYaml) }}
{{- end }}
{{- toYaml (concat $mounts (default list $values.extraVolumeMounts)) -}}
{{- end }}

{{- define "s3daemon.tokenMount" -}}
name: s3daemon-token
mountPath: /etc/s3daemon/token
readOnly: true
{{- end }}

{{- /*
s3daemon.secretVolumes hold what is secret, and the authorities: mounted as
directories, never by subPath, since Kubernetes renews the former alone.
*/ -}}
{{- define "s3daemon.secretVolumes" -}}
{{- $volumes := list -}}
{{- with .Values.credentials }}
{{- if and .secret (eq .as "file") }}
{{- $items := list }}
{{- range $key := include "s3daemon.credentialKeys" $ | fromYaml | values | sortAlpha | uniq }}
{{- $items = append $items (dict "key" $key "path" $key) }}
{{- end }}
{{- $volumes = append $volumes (dict "name" "s3daemon-credentials" "secret" (dict "secretName" .secret "items" $items)) }}
{{- end }}
{{- end }}
{{- with .Values.store.caBundle }}
{{- $items := list (dict "key" .key "path" .key) }}
{{- if .configMap }}
{{- $volumes = append $volumes (dict "name" "s3daemon-ca" "configMap" (dict "name" .configMap "items" $items)) }}
{{- else if .secret }}
{{- $volumes = append $volumes (dict "name" "s3daemon-ca" "secret" (dict "secretName" .secret "items" $items)) }}
{{- end }}
{{- end }}
{{- with $volumes }}{{ toYaml . }}{{ end -}}
{{- end }}

{{- define "s3daemon.tokenVolume" -}}
{{- with .Values.token -}}
{{- if .secret -}}
- name: s3daemon-token
  secret:
    secretName: {{ .secret | quote }}
    items:
      - key: {{ .key | quote }}
        path: {{ .key | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "s3daemon.sendVolume" -}}
{{- if .Values.send.install -}}
- name: s3daemon-bin
  emptyDir: {}
{{- end }}
{{- end }}

{{- /* s3daemon.joined writes lists of YAML, some of them empty, as one: a list of texts. */ -}}
{{- define "s3daemon.joined" -}}
{{- without . "" | join "\n" -}}
{{- end }}

{{- define "s3daemon.extraVolumes" -}}
{{- with .Values.extraVolumes }}{{ toYaml . }}{{ end -}}
{{- end }}
