{{- /* What values.schema.json cannot say, or not in words that help. */ -}}

{{- /* s3daemon.checkAll holds for every use of the chart. */ -}}
{{- define "s3daemon.checkAll" -}}
{{- with .Values -}}
{{- if and .store.caBundle.configMap .store.caBundle.secret }}
{{- fail "store.caBundle: it comes from a configMap or from a secret, not from both: unset one" }}
{{- end }}
{{- if and (eq .probes.by "http") (not .ops.enabled) }}
{{- fail "probes.by=http asks at the ops port: set ops.enabled=true, or probes.by=exec" }}
{{- end }}
{{- if and .podMonitor.enabled (not .ops.enabled) }}
{{- fail "podMonitor.enabled has Prometheus ask at the ops port: set ops.enabled=true" }}
{{- end }}
{{- if and .networkPolicy.enabled (not .node.enabled) }}
{{- fail "networkPolicy is for the node's pods: set node.enabled=true. A writer's pods are its own chart's to fence in" }}
{{- end }}
{{- if and .networkPolicy.scrapeFrom (not .ops.enabled) }}
{{- fail "networkPolicy.scrapeFrom lets peers in to the ops port: set ops.enabled=true" }}
{{- end }}
{{- if and .node.enabled .node.prepare (kindIs "invalid" .securityContext.runAsUser) }}
{{- fail "node.prepare gives directories to securityContext.runAsUser: set that, or node.prepare=false" }}
{{- end }}
{{- if and .node.enabled (not .node.dataDirectories) }}
{{- fail "node.dataDirectories: name the directories of the host that files are to be pushed from" }}
{{- end }}
{{- if and .example.enabled (not .example.bucket) }}
{{- fail "example.bucket: name a bucket that the example may write to" }}
{{- end }}
{{- end -}}
{{- end }}

{{- /* s3daemon.checkSidecar holds for a writer's pod. */ -}}
{{- define "s3daemon.checkSidecar" -}}
{{- include "s3daemon.checkAll" . -}}
{{- with .Values -}}
{{- if and .sidecar.native (semverCompare "<1.29.0-0" $.Capabilities.KubeVersion.Version) }}
{{- fail (printf "sidecar.native needs Kubernetes 1.29, and this is %s: set sidecar.native=false" $.Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if not (or .sidecar.dataMounts (hasKey .settings "S3DAEMON_ROOTS")) }}
{{- fail "sidecar.dataMounts: name the volumes of the pod that files are to be pushed from, and where they are mounted" }}
{{- end }}
{{- if and .sidecar.legacy.enabled (eq (int .sidecar.legacy.port) (int .sidecar.port)) }}
{{- fail "sidecar.legacy.port and sidecar.port are the same: change one" }}
{{- end }}
{{- if and (eq .journal.in "claim") (not .journal.claim) }}
{{- fail "journal.in=claim needs journal.claim, the name of a PersistentVolumeClaim" }}
{{- end }}
{{- if and (eq .journal.in "volume") (not .journal.volume) }}
{{- fail "journal.in=volume needs journal.volume, the name of a volume of the pod" }}
{{- end }}
{{- end -}}
{{- end }}
