{{- /* What values.schema.json cannot say, or not in words that help. */ -}}

{{- /*
s3daemon.checkDirectories holds for the directories of the host. Those of socket
and journal are given away, and kubelet follows links: where a writer may put
one, it could have any directory given away.
*/ -}}
{{- define "s3daemon.checkDirectories" -}}
{{- $named := list (list "node.socketDirectory" .socketDirectory) (list "node.journalDirectory" .journalDirectory) -}}
{{- $own := $named -}}
{{- range $directory := .dataDirectories -}}
{{- $named = append $named (list "node.dataDirectories" $directory) -}}
{{- end }}
{{- range $one := $named }}
{{- if ne (clean (last $one)) (last $one) }}
{{- fail (printf "%s: write %s as %s" (first $one) (last $one) (clean (last $one))) }}
{{- end }}
{{- end }}
{{- range $one := $own }}
{{- if not (regexMatch "^/[^/]+/[^/]" (last $one)) }}
{{- fail (printf "%s: %s is the system's: name a directory that is the daemon's alone, such as /run/s3daemon" (first $one) (last $one)) }}
{{- end }}
{{- if regexMatch "^/(bin|boot|dev|etc|lib|lib32|lib64|proc|root|sbin|sys|usr)/|^/var/(cache|lib|lock|log|mail|opt|run|spool|tmp)$|^/run/(lock|user)$|^/(var/lib|var/run|run)/(kubelet|containerd|crio|docker|containers|dbus|systemd|udev)(/|$)" (last $one) }}
{{- fail (printf "%s: %s is not for a daemon to have as its own: name another directory, such as /run/s3daemon or /var/lib/s3daemon" (first $one) (last $one)) }}
{{- end }}
{{- end }}
{{- range $i, $one := $named }}
{{- range $other := slice $named 0 $i }}
{{- if or (hasPrefix (printf "%s/" (last $other)) (printf "%s/" (last $one))) (hasPrefix (printf "%s/" (last $one)) (printf "%s/" (last $other))) }}
{{- fail (printf "%s and %s: of %s and %s neither may be in the other" (first $other) (first $one) (last $other) (last $one)) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $one := $named }}
{{- $path := printf "%s/" (last $one) -}}
{{- range list "/etc/s3daemon/" "/var/lib/s3daemon/" }}
{{- if and (ne (first $one) "node.journalDirectory") (or (hasPrefix $path .) (hasPrefix . $path)) }}
{{- fail (printf "%s: the daemon's container has directories of its own at %s, where %s would be as well: name another" (first $one) (trimSuffix "/" .) (last $one)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

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
{{- include "s3daemon.checkDirectories" .node -}}
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
{{- if and .storeAt .storePorts $.store.endpoint -}}
{{- $port := include "s3daemon.storePort" $ -}}
{{- $ports := list -}}
{{- range .storePorts }}{{ $ports = append $ports (include "s3daemon.text" .) }}{{ end -}}
{{- if not (has $port $ports) }}
{{- fail (printf "networkPolicy.storePorts: the port of store.endpoint, %s, is none of them: add it" $port) }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* s3daemon.storePort is the port of the store's address; of Amazon S3 it is https's. The context is the values. */ -}}
{{- define "s3daemon.storePort" -}}
{{- $url := urlParse (default "https://" .store.endpoint) -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) -}}
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
