package k8s

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// example is a release of the chart with its example: a StatefulSet whose pod
// writes a file now and then, with a sidecar.
type example struct {
	n     *namespace
	name  string // of the release
	notes string // what helm says when it has installed it
}

// startExample installs the chart's example with these values besides, and sees
// to it that its pod gets its volume. Whether it gets ready is for the test.
func startExample(n *namespace, release string, s *store, values map[string]any) *example {
	n.t.Helper()
	e := &example{n: n, name: release}
	values = merged(map[string]any{
		"image":       imageValues(image(n.t)),
		"store":       map[string]any{"endpoint": s.endpoint},
		"credentials": map[string]any{"secret": storeSecret},
		"example":     map[string]any{"enabled": true, "image": busyboxImage(n.t), "bucket": "raw", "intervalSeconds": 2},
	}, values)
	e.notes = n.install(release, chart(n.t), jsonValues(n.t, values)).stdout
	claims := strings.Fields(n.kubectl("get", "statefulsets", "--selector", e.labels(), "--output",
		"jsonpath={range .items[*]}{.spec.volumeClaimTemplates[*].metadata.name}-{.metadata.name}-0{end}"))
	n.volumes(claims...)
	return e
}

func (e *example) labels() string { return "app.kubernetes.io/instance=" + e.name }

// pod returns the example's pod, as soon as it is there.
func (e *example) pod() (found pod) {
	e.n.t.Helper()
	e.n.until(patience, "the pod of "+e.name+" is there", func() error {
		pods := e.n.pods(e.labels())
		if len(pods) != 1 {
			return fmt.Errorf("%d pods", len(pods))
		}
		found = pods[0]
		return nil
	})
	return found
}

// writer runs a command in the container of the example's writer.
func (e *example) writer(command ...string) string {
	e.n.t.Helper()
	name := e.pod().Metadata.Name
	e.n.untilReady(name)
	return e.n.exec(name, "writer", command...)
}

// TestExample installs the example where the restricted standard is enforced, has
// helm test it, and removes it.
func TestExample(t *testing.T) {
	t.Parallel()
	n := newNamespace(t, restricted)
	s := n.startStore("raw")
	e := startExample(n, "example", s, nil)
	e.paste()
	if len(s.objects()) == 0 {
		t.Error("the store has none of its files")
	}
	e.uninstall("persistentvolumeclaims")
}

// TestNodeRelease has helm test a release with one daemon a node, and removes it:
// what the node has on its disk stays, so the next release goes on with it.
func TestNodeRelease(t *testing.T) {
	t.Parallel()
	d := startNode(t, nil)
	e := &example{n: d.n, name: "node", notes: d.upgrade(nil).stdout}
	e.paste()
	e.uninstall("")
	list := asRoot(t, d.name, "find", d.base)
	t.Logf("on the node there is left\n%s", list)
	if !strings.Contains(list, "journal.db") {
		t.Error("the journal is gone")
	}
	d.upgrade(nil)
}

// paste runs the commands of the notes, as they stand there: what is rolled out
// is waited for, and helm tests the release.
func (e *example) paste() {
	e.n.t.Helper()
	tested := false
	for line := range strings.Lines(e.notes) {
		command := strings.TrimSpace(line)
		if !strings.HasPrefix(command, "kubectl ") && !strings.HasPrefix(command, "helm ") {
			continue
		}
		s, err := run("", "sh", "-c", command)
		if err != nil {
			e.n.t.Fatal(err)
		}
		if strings.HasPrefix(command, "helm test ") {
			tested = strings.Contains(s.stdout, "Succeeded")
		}
	}
	if !tested {
		e.n.t.Errorf("helm test was not run, or did not succeed, by these notes:\n%s", e.notes)
	}
}

// uninstall removes the release, and fails the test where anything of it is left
// in the cluster but objects of that kind, and pods of helm test.
func (e *example) uninstall(kind string) {
	e.n.t.Helper()
	if s, err := e.n.helm("", "uninstall", e.name, "--wait", "--timeout", "2m"); err != nil {
		e.n.t.Fatal(err, s.stdout)
	}
	e.n.kubectl("delete", "pods", "--selector", e.labels(), "--field-selector", "status.phase=Succeeded")
	const all = "pods,statefulsets,daemonsets,deployments,jobs,configmaps,secrets,services,serviceaccounts,networkpolicies,persistentvolumeclaims"
	e.n.until(patience, "what was made is gone", func() error {
		var list struct {
			Items []struct {
				Kind     string `json:"kind"`
				Metadata struct {
					Name string `json:"name"`
				} `json:"metadata"`
			} `json:"items"`
		}
		if err := json.Unmarshal([]byte(e.n.kubectl("get", all, "--selector", e.labels(), "--output", "json")), &list); err != nil {
			return err
		}
		for _, o := range list.Items {
			if kind == "" || !strings.EqualFold(o.Kind+"s", kind) {
				return fmt.Errorf("there is still the %s %s", o.Kind, o.Metadata.Name)
			}
		}
		return nil
	})
}
