package chart

import (
	"slices"
	"strings"
	"testing"
)

// TestRulesCanFail breaks what helm rendered in a place, as a mistake in a
// template would, and sees the rule find it. Each rule is here.
func TestRulesCanFail(t *testing.T) {
	t.Parallel()
	cases := []struct{ rule, row, old, new string }{
		{"names and labels are such as Kubernetes takes", "sidecar", "name: s3daemon-install-send\n", "name: s3daemon_install_send\n"},
		{"names and labels are such as Kubernetes takes", "sidecar", "  name: r\n", "  name: R\n"},
		{"names and labels are such as Kubernetes takes", "sidecar", "kubernetes.io/name: writer\n", "kubernetes.io/name: -writer-\n"},
		{"names and labels are such as Kubernetes takes", "probes-http", "name: s3daemon-ops\n", "name: s3daemon-health-and-metrics\n"},
		{"names and labels are such as Kubernetes takes", "sidecar", "- name: s3daemon-install-send\n", "- name: s3daemon\n"},
		{"no two objects have one name", "sidecar", "kind: Service\n", "kind: Service\nmetadata: {name: r}\n---\napiVersion: v1\nkind: Service\n"},
		{"selectors find what they are for", "node", "component: node\n  updateStrategy:", "component: nodes\n  updateStrategy:"},
		{"selectors find what they are for", "node", "serviceAccountName: r-s3daemon", "serviceAccountName: r"},
		{"selectors find what they are for", "sidecar", "serviceName: r\n", "serviceName: writer\n"},
		{"selectors find what they are for", "node-ops", "- port: s3daemon-ops\n      path", "- port: metrics\n      path"},
		{"selectors find what they are for", "node-ops", "matchLabels:\n      s3daemon.lsst.io/release: r", "matchLabels:\n      s3daemon.lsst.io/release: s"},
		{"selectors find what they are for", "node-ops", "component: node\n  policyTypes", "component: example\n  policyTypes"},
		{"selectors find what they are for", "node-ops", "ports:\n        - port: s3daemon-ops", "ports:\n        - port: metrics"},
		{"selectors find what they are for", "node-ops", "    - Egress\n", ""},
		{"writers and daemons have the host's directories alike", "node-writer", "mountPath: \"/srv/more\"", "mountPath: \"/more\""},
		{"writers and daemons have the host's directories alike", "node-writer-elsewhere", "supplementalGroups:\n          - 2000", "supplementalGroups:\n          - 2001"},
		{"there is time to end", "sidecar-legacy", "- name: s3daemon\n", "- name: s3daemon-legacy\n          image: a:1\n        - name: s3daemon\n"},
		{"files that variables name are mounted", "credentials-file", "path: secret", "path: AWS_SECRET_ACCESS_KEY"},
		{"writers and daemons agree", "monitored-writer", "containerPort: 9100", "containerPort: 9090"},
		{"the restricted Pod Security Standard", "sidecar", "runAsNonRoot: true", "runAsNonRoot: false"},
		{"the restricted Pod Security Standard", "sidecar", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"},
		{"the restricted Pod Security Standard", "node", "- ALL\n            readOnlyRootFilesystem: true\n            runAsGroup: 65532\n            runAsNonRoot: true", "- KILL\n            readOnlyRootFilesystem: true\n            runAsGroup: 65532\n            runAsNonRoot: true"},
		{"the restricted Pod Security Standard", "long-link", "net.ipv4.tcp_wmem", "net.core.wmem_max"},
		{"the restricted Pod Security Standard", "sidecar", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"},
		{"pods get nothing that they do not use", "sidecar", "enableServiceLinks: false", "enableServiceLinks: true"},
		{"pods get nothing that they do not use", "node", "automountServiceAccountToken: false\n      t", "t"},
		{"pods get nothing that they do not use", "sidecar", "busybox:1.37.0", "busybox:latest"},
		{"pods get nothing that they do not use", "sidecar", "busybox:1.37.0", "busybox"},
		{"there is time to end", "sidecar", "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 59"},
		{"there is time to end", "node", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 29"},
		{"there is time to end", "sidecar", `value: "90s"`, `value: "60s"`},
		{"there is time to end", "sidecar", `value: "25s"`, `value: "25 s"`},
		{"there is time to end", "sidecar", "restartPolicy: Always\n", "restartPolicy: Never\n"},
		{"there is time to end", "sidecar-legacy", "restartPolicy: Always\n          command", "command"},
		{"there is time to end", "sidecar-old-cluster", "sleep, 60s", "sleep, 50s"},
		{"there is time to end", "sidecar-legacy-old-cluster", "sleep, 30s", "sleep, 0s"},
		{"a Job's barrier is that of its retries too", "job-claim", "-wait \"$label\"", "-wait \"$HOSTNAME\""},
		{"a Job's barrier is that of its retries too", "job-claim", "label=$JOB$", "label=$HOSTNAME$"},
		{"a Job's barrier is that of its retries too", "job-claim", "metadata.labels['batch.kubernetes.io/job-name']", "metadata.name"},
		{"probes", "sidecar", "livenessProbe:\n            exec:\n              command:\n              - /s3daemon\n              - healthcheck\n            failureThreshold: 3\n            periodSeconds: 30\n            timeoutSeconds: 4\n          readinessProbe", "readinessProbe"},
		{"probes", "sidecar", "- healthcheck\n              - ready\n", "- healthcheck\n"},
		{"probes", "sidecar", "timeoutSeconds: 4", "timeoutSeconds: 1"},
		{"probes", "probes-http", "path: /healthz", "path: /readyz"},
		{"probes", "probes-http", "value: \":9090\"", "value: \":9091\""},
		{"probes", "sidecar-legacy", `healthcheck, "127.0.0.1:25555"`, `healthcheck, "127.0.0.1:15555"`},
		{"resources", "sidecar", "cpu: 100m", "ephemeral-storage: 1Gi"},
		{"resources", "sidecar", "memory: 256Mi", "memory: 32Mi"},
		{"resources", "sidecar", "memory: 256Mi", "memory: 256Mi\n              cpu: 1"},
		{"what is mounted is there, and what is there is mounted", "sidecar", "- name: s3daemon-bin\n          emptyDir", "- name: bin\n          emptyDir"},
		{"what is mounted is there, and what is there is mounted", "sidecar", "mountPath: /var/lib/s3daemon", "mountPath: /data"},
		{"what is mounted is there, and what is there is mounted", "sidecar", "- name: s3daemon-bin\n          emptyDir", "- name: s3daemon-bin\n          emptyDir: {}\n        - name: s3daemon-bin\n          emptyDir"},
		{"secrets are mounted so that they are renewed", "credentials-file", "name: s3daemon-credentials\n", "name: s3daemon-credentials\n              subPath: id\n"},
		{"secrets are mounted so that they are renewed", "ca-secret", "name: s3daemon-ca\n              readOnly: true", "name: s3daemon-ca"},
		{"variables", "sidecar", "name: S3DAEMON_DRAIN\n", "name: S3DAEMON_DRAINS\n"},
		{"variables", "sidecar", "name: AWS_ACCESS_KEY_ID_FILE\n", "name: AWS_SECRET_ACCESS_KEY_FILE\n"},
		{"variables", "sidecar", `value: "queue"`, `value: ""`},
		{"files that variables name are mounted", "sidecar", "/etc/s3daemon/credentials/AWS_ACCESS_KEY_ID", "/etc/credentials/AWS_ACCESS_KEY_ID"},
		{"files that variables name are mounted", "node-writer", "unix:/run/s3daemon/", "unix:/run/"},
		{"files that variables name are mounted", "token", "value: \"/etc/s3daemon/token/first\"", "value: \"/etc/s3daemon/first\""},
		{"writers and daemons agree", "sidecar-port", "value: \"http://127.0.0.1:8080\"", "value: \"http://127.0.0.1:15556\""},
		{"writers and daemons agree", "sidecar-deployment", "value: \"127.0.0.1:15556\"", "value: \":15556\""},
		{"writers and daemons agree", "sidecar", "name: data\n              readOnly: true", "name: data"},
		{"writers and daemons agree", "node-writer", "mountPath: \"/run/s3daemon\"\n              readOnly: true", "mountPath: \"/run/s3daemon\""},
		{"alerts and dashboard are those of the files", "prometheus-rule", "{{ $labels.instance }}", ""},
		{"alerts and dashboard are those of the files", "dashboard", "s3daemon_queue_depth", "s3daemon_queue"},
	}
	tried := make(map[string]bool)
	rows := matrix(t)
	for _, c := range cases {
		files, values, err := rows[slices.IndexFunc(rows, func(r row) bool { return r.name == c.row })].render()
		if err != nil {
			t.Fatal(err)
		}
		text := joined(files)
		if !strings.Contains(text, c.old) {
			t.Errorf("%s: there is no %q to break", c.row, c.old)
			continue
		}
		wrong := broken(map[string]string{"broken.yaml": strings.Replace(text, c.old, c.new, 1)}, values)
		if !slices.ContainsFunc(wrong, func(line string) bool { return strings.HasPrefix(line, c.rule+": ") }) {
			t.Errorf("%s: %q in place of %q, and the rule %q finds nothing; others: %q", c.row, c.new, c.old, c.rule, wrong)
		}
		tried[c.rule] = true
	}
	for _, rule := range rules {
		if !tried[rule.name] {
			t.Errorf("the rule %q has not been seen to fail", rule.name)
		}
	}
}

// TestDecodingIsStrict: what the API server would drop, or take the last of, is
// a mistake; so is what nobody knows.
func TestDecodingIsStrict(t *testing.T) {
	files, values, err := rowNamed(t, "sidecar").render()
	if err != nil {
		t.Fatal(err)
	}
	text := joined(files)
	for _, c := range []struct{ old, new, wrong string }{
		{"timeoutSeconds:", "timeoutsSeconds:", `unknown field "spec.template.spec.initContainers[0].livenessProbe.timeoutsSeconds"`},
		{"replicas: 1", "replicas: 1\n  replicas: 2", `key "replicas" already set`},
		{"replicas: 1", "replicas: one", "cannot unmarshal string"},
		{"kind: Service\n", "kind: Servant\n", `no kind "Servant"`},
		{"apiVersion: apps/v1", "apiVersion: apps/v2", `no kind "StatefulSet" is registered for version "apps/v2"`},
	} {
		if !strings.Contains(text, c.old) {
			t.Errorf("there is no %q to break", c.old)
			continue
		}
		wrong := broken(map[string]string{"broken.yaml": strings.Replace(text, c.old, c.new, 1)}, values)
		if len(wrong) != 1 || !strings.Contains(wrong[0], c.wrong) {
			t.Errorf("%q in place of %q: %q", c.new, c.old, wrong)
		}
	}
}
