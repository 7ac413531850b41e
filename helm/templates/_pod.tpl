{{- /*
s3daemon.podSecurityContext is that of a pod with the daemon: what the values say,
and the settings of TCP for a long link.
*/ -}}
{{- define "s3daemon.podSecurityContext" -}}
{{- $context := deepCopy .Values.podSecurityContext -}}
{{- with .Values.longLink -}}
{{- if .enabled -}}
{{- $sysctls := list (dict "name" "net.ipv4.tcp_wmem" "value" .tcpWmem) -}}
{{- if not (kindIs "invalid" .slowStartAfterIdle) -}}
{{- $sysctls = append $sysctls (dict "name" "net.ipv4.tcp_slow_start_after_idle" "value" (include "s3daemon.text" .slowStartAfterIdle)) -}}
{{- end -}}
{{- $_ := set $context "sysctls" (concat (default list $context.sysctls) $sysctls) -}}
{{- end -}}
{{- end -}}
{{- toYaml $context -}}
{{- end }}

{{- /* s3daemon.podLabels are what the PodMonitor of the release looks for. */ -}}
{{- define "s3daemon.podLabels" -}}
s3daemon.lsst.io/release: {{ .Release.Name }}
{{- end }}

{{- /* s3daemon.ownPod is what the pods have in common that are the chart's own. */ -}}
{{- define "s3daemon.ownPod" -}}
enableServiceLinks: false
serviceAccountName: {{ include "s3daemon.serviceAccountName" . }}
automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
