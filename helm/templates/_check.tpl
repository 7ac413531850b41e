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
{{- include "s3daemon.checkPolicy" . }}
{{- include "s3daemon.checkLabels" $ }}
{{- if and .example.enabled (not .example.bucket) }}
{{- fail "example.bucket: name a bucket that the example may write to" }}
{{- end }}
{{- end -}}
{{- end }}

{{- /* s3daemon.checkPolicy: a policy that keeps the daemon from its store is none. */ -}}
{{- define "s3daemon.checkPolicy" -}}
{{- with .networkPolicy -}}
{{- if and .storeAt $.store.endpoint -}}
{{- $url := urlParse $.store.endpoint -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) -}}
{{- $ports := list -}}
{{- range .storePorts }}{{ $ports = append $ports (include "s3daemon.text" .) }}{{ end -}}
{{- if not (has $port $ports) }}
{{- fail (printf "networkPolicy.storePorts: the port of store.endpoint, %s, is none of them: add it" $port) }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* s3daemon.checkLabels: labels of the chart's own are not for others to set; YAML has each once. */ -}}
{{- define "s3daemon.checkLabels" -}}
{{- $own := keys (include "s3daemon.labels" . | fromYaml) (include "s3daemon.selectorLabels" (dict "root" . "component" "x") | fromYaml) (include "s3daemon.podLabels" . | fromYaml) -}}
{{- range $of := list "podMonitor.labels" "prometheusRule.labels" "dashboard.labels" "node.podLabels" -}}
{{- $path := splitList "." $of -}}
{{- range $label, $_ := default dict (get (get $.Values (first $path)) (last $path)) -}}
{{- if has $label $own }}
{{- fail (printf "%s: %s is set by the chart: take another label" $of $label) }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* s3daemon.checkSidecar holds for a writer's pod. */ -}}
{{- define "s3daemon.checkSidecar" -}}
{{- include "s3daemon.checkAll" . -}}
{{- with .Values -}}
{{- if and .sidecar.native (semverCompare "<1.29.0-0" $.Capabilities.KubeVersion.Version) }}
{{- fail (printf "sidecar.native needs Kubernetes 1.29, and this is %s: set sidecar.native=false" $.Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if not (or .sidecar.dataMounts (hasKey (default dict .settings) "S3DAEMON_ROOTS")) }}
{{- fail "sidecar.dataMounts: name the volumes of the pod that files are to be pushed from, and where they are mounted" }}
{{- end }}
{{- if and .sidecar.legacy.enabled (eq (int .sidecar.legacy.port) (int .sidecar.port)) }}
{{- fail "sidecar.legacy.port and sidecar.port are the same: change one" }}
{{- end }}
{{- if and .ops.enabled (or (eq (int .ops.port) (int .sidecar.port)) (and .sidecar.legacy.enabled (eq (int .ops.port) (int .sidecar.legacy.port)))) }}
{{- fail "ops.port is that of another listener of the pod, sidecar.port or sidecar.legacy.port: change one" }}
{{- end }}
{{- range .sidecar.dataMounts }}
{{- $path := printf "%s/" (clean .mountPath | trimSuffix "/") }}
{{- range list "/etc/s3daemon/" "/var/lib/s3daemon/" }}
{{- if or (hasPrefix $path .) (hasPrefix . $path) }}
{{- fail (printf "sidecar.dataMounts: the daemon has directories of its own at %s, where %s would be as well: mount the volume elsewhere" (trimSuffix "/" .) (trimSuffix "/" $path | default "/")) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq .journal.in "claim") (not .journal.claim) }}
{{- fail "journal.in=claim needs journal.claim, the name of a PersistentVolumeClaim" }}
{{- end }}
{{- if and (eq .journal.in "volume") (not .journal.volume) }}
{{- fail "journal.in=volume needs journal.volume, the name of a volume of the pod" }}
{{- end }}
{{- end -}}
{{- end }}
