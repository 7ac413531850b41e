package k8s

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// TestMatrix has the API server judge all that the charts can become, as the
// matrix in ../chart has it, without making anything of it. Where no row's pod
// mounts a directory of the node the namespace enforces the restricted standard,
// and a warning is a failure everywhere. Each pod template goes there as a bare
// pod too: what a pod may be is enforced of pods alone.
func TestMatrix(t *testing.T) {
	t.Parallel()
	needCluster(t)
	files, err := filepath.Glob("../chart/testdata/matrix/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no rows: %v", err)
	}
	monitoring := monitoringResources(t)
	spaces := map[string]*namespace{restricted: newNamespace(t, restricted), privileged: newNamespace(t, privileged)}
	charts := map[string]string{"s3daemon": chart(t), "writer": writerChart(t)}
	taken := map[string]int{}
	version := clusterVersion(t)
	for _, file := range files {
		r := readRow(t, file, version)
		t.Run(r.name, func(t *testing.T) {
			if newer(r.kube, version) {
				t.Skipf("it is for Kubernetes %s, and this is %s", r.kube, version)
			}
			level := restricted
			objects := render(t, r, charts[r.chart], spaces[level].name)
			if mountsNode(objects) {
				level = privileged
				objects = render(t, r, charts[r.chart], spaces[level].name)
			}
			if !monitoring {
				objects = without(objects, "monitoring.coreos.com/")
			}
			if len(objects) == 0 {
				return // nothing is rendered of values that ask for nothing
			}
			list := jsonValues(t, map[string]any{"apiVersion": "v1", "kind": "List", "items": barePods(objects)})
			if err := spaces[level].tryApply(list, "--dry-run=server"); err != nil {
				t.Errorf("in a namespace that enforces %s: %v", level, err)
			}
			taken[level] += len(objects)
		})
	}
	t.Logf("%d rows: %d objects in a namespace that enforces the restricted standard, %d with directories of the node", len(files), taken[restricted], taken[privileged])
	if !monitoring {
		t.Log("without those of Prometheus' operator, whose definitions cannot be had")
	}
}

// matrixRow is a row of the matrix; see ../chart/doc.go.
type matrixRow struct{ name, file, chart, kube, release string }

// readRow reads one; where it does not say for what version of Kubernetes it is,
// that is the cluster's.
func readRow(t *testing.T, file, version string) matrixRow {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := matrixRow{name: strings.TrimSuffix(filepath.Base(file), ".yaml"), file: file, chart: "s3daemon", kube: version, release: "r"}
	for line := range strings.Lines(string(text)) {
		comment, found := strings.CutPrefix(strings.TrimSpace(line), "# ")
		if !found {
			break
		}
		switch key, value, _ := strings.Cut(comment, ": "); key {
		case "chart":
			r.chart = value
		case "kube":
			r.kube = value
		case "release":
			r.release = value
		}
	}
	return r
}

// clusterVersion returns the version of Kubernetes.
func clusterVersion(t *testing.T) string {
	t.Helper()
	var version struct {
		ServerVersion struct {
			GitVersion string `json:"gitVersion"`
		} `json:"serverVersion"`
	}
	if err := json.Unmarshal([]byte(kubectl(t, "version", "--output", "json")), &version); err != nil {
		t.Fatal(err)
	}
	return version.ServerVersion.GitVersion
}

// newer reports whether a version, 1.N or v1.N.P, is of a later N than another.
func newer(version, than string) bool {
	var minor [2]int
	for i, v := range []string{version, than} {
		fmt.Sscanf(strings.TrimPrefix(v, "v"), "1.%d", &minor[i])
	}
	return minor[0] > minor[1]
}

// render returns the objects of a row.
func render(t *testing.T, r matrixRow, chart, namespace string) (objects []any) {
	t.Helper()
	s, err := run("", "helm", "template", r.release, chart, "--namespace", namespace, "--values", r.file, "--kube-version", r.kube)
	if err != nil {
		t.Fatal(err)
	}
	for decoder := yaml.NewDecoder(strings.NewReader(s.stdout)); ; {
		var o map[string]any
		switch err := decoder.Decode(&o); {
		case errors.Is(err, io.EOF):
			return objects
		case err != nil:
			t.Fatal(err)
		case o != nil:
			objects = append(objects, o)
		}
	}
}

// at returns what is in nested objects at the keys given; nil where it is not.
func at(o any, keys ...string) any {
	for _, key := range keys {
		fields, _ := o.(map[string]any)
		o = fields[key]
	}
	return o
}

// podSpec returns what an object's pods are to be, of a pod what it is itself; nil
// where it has none.
func podSpec(o any) map[string]any {
	spec := at(o, "spec", "template", "spec")
	if at(o, "kind") == "Pod" {
		spec = at(o, "spec")
	}
	fields, _ := spec.(map[string]any)
	return fields
}

func mountsNode(objects []any) bool {
	for _, o := range objects {
		volumes, _ := podSpec(o)["volumes"].([]any)
		for _, v := range volumes {
			if at(v, "hostPath") != nil {
				return true
			}
		}
	}
	return false
}

// barePods returns the objects, with the pods that workloads would make of them
// besides. What would have to be there before a pod, and is not, pods do without:
// a service account of their own, a priority class.
func barePods(objects []any) (all []any) {
	for i, o := range objects {
		spec := podSpec(o)
		if spec == nil {
			all = append(all, o)
			continue
		}
		bare := maps.Clone(spec)
		delete(bare, "serviceAccountName")
		delete(bare, "priorityClassName")
		volumes, _ := spec["volumes"].([]any)
		templates, _ := at(o, "spec", "volumeClaimTemplates").([]any)
		for _, template := range templates {
			claim := map[string]any{"claimName": "a-claim"}
			volumes = append(volumes, map[string]any{"name": at(template, "metadata", "name"), "persistentVolumeClaim": claim})
		}
		if volumes != nil {
			bare["volumes"] = volumes
		}
		pod := map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": bare, "metadata": at(o, "metadata")}
		if at(o, "kind") != "Pod" {
			all = append(all, o)
			pod["metadata"] = podMetadata(o, i)
		}
		all = append(all, pod)
	}
	return all
}

// podMetadata is that of a workload's first pod; i tells it from those of others.
// A StatefulSet's is called after it and has its name in a label, which bounds how
// long that may be.
func podMetadata(workload any, i int) map[string]any {
	labels, _ := at(workload, "spec", "template", "metadata", "labels").(map[string]any)
	if at(workload, "kind") != "StatefulSet" {
		return map[string]any{"name": fmt.Sprintf("bare-%d", i), "labels": labels}
	}
	name := fmt.Sprint(at(workload, "metadata", "name"))
	labels = maps.Clone(labels)
	labels["controller-revision-hash"] = name + "-0123456789"
	return map[string]any{"name": name + "-0", "labels": labels}
}

// without returns the objects that are not of that API group.
func without(objects []any, group string) (others []any) {
	for _, o := range objects {
		if version, _ := at(o, "apiVersion").(string); !strings.HasPrefix(version, group) {
			others = append(others, o)
		}
	}
	return others
}

// operator is the module that has the definitions of PodMonitor and
// PrometheusRule, of the version whose types ../chart decodes them into.
const operator = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

// monitoringResources sees to it that the API server knows PodMonitor and
// PrometheusRule, and reports whether it does. Where they are not defined they are
// for the time of the test.
func monitoringResources(t *testing.T) bool {
	t.Helper()
	for _, name := range []string{"podmonitors", "prometheusrules"} {
		if _, err := run("", "kubectl", "get", "customresourcedefinition", name+".monitoring.coreos.com"); err == nil {
			continue
		}
		s, err := run("", "go", "mod", "download", "-json", operator)
		var module struct{ Dir string }
		if err == nil {
			err = json.Unmarshal([]byte(s.stdout), &module)
		}
		if err != nil {
			t.Log(err)
			return false
		}
		file := filepath.Join(module.Dir, "example/prometheus-operator-crd/monitoring.coreos.com_"+name+".yaml")
		t.Cleanup(func() { kubectl(t, "delete", "--filename", file) })
		kubectl(t, "create", "--filename", file)
		kubectl(t, "wait", "--for=condition=established", "--filename", file, "--timeout=60s")
	}
	return true
}
