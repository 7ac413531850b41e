package k8s

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestMistakes makes those that people make, and demands that what they look at
// then, kubectl describe and kubectl logs, says what is wrong. How soon is told:
// most of it is what the cluster takes to start a pod.
func TestMistakes(t *testing.T) {
	t.Parallel()
	n := newNamespace(t, restricted)
	s := n.startStore("raw")
	n.credentials("wrong-credentials", "E2E-UNKNOWN", "not-the-secret")
	mistakes := []struct {
		name   string
		values map[string]any
		where  string // describe or logs
		says   string
	}{
		{"no-secret", map[string]any{"credentials": map[string]any{"secret": "absent"}}, "describe", `secret "absent" not found`},
		{"no-key", map[string]any{"credentials": map[string]any{"secret": storeSecret, "keys": map[string]any{"accessKeyID": "ABSENT"}}}, "describe", "ABSENT"},
		{"wrong-endpoint", map[string]any{"store": map[string]any{"endpoint": "http://nowhere." + n.name + ".svc:9000"}}, "logs", "the store cannot be reached"},
		{"wrong-credentials", map[string]any{"credentials": map[string]any{"secret": "wrong-credentials"}}, "logs", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not the store's"},
		{"wrong-setting", map[string]any{"settings": map[string]any{"S3DAEMON_ATTEMPTS": "0"}}, "logs", "S3DAEMON_ATTEMPTS: "},
		{"wrong-image", map[string]any{"image": map[string]any{"repository": "registry.invalid/s3daemon", "tag": "none"}}, "describe", "registry.invalid"},
	}
	for _, m := range mistakes {
		began := time.Now()
		name := startExample(n, m.name, s, m.values).pod().Metadata.Name
		args := []string{"describe", "pod", name}
		if m.where == "logs" {
			args = []string{"logs", name, "--container", "s3daemon"}
		}
		err := poll(2*patience, func() error {
			said, err := n.try(args...)
			if err == nil && !strings.Contains(said.stdout, m.says) {
				err = fmt.Errorf("it says %s", tail(said.stdout, 3000))
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: kubectl %s does not say %q: %v", m.name, m.where, m.says, err)
		}
		t.Logf("%s: known after %v", m.name, time.Since(began).Round(time.Second))
		if _, err := n.helm("", "uninstall", m.name); err != nil {
			t.Error(err)
		}
	}
}
