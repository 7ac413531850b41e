package k8s

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
)

// errNotYet is the answer of what has to be asked again.
var errNotYet = errors.New("not yet")

// defaultClass reports whether claims that name no storage class get a volume
// from the cluster.
func defaultClass(t testing.TB) bool {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Annotations map[string]string `json:"annotations"`
			} `json:"metadata"`
		} `json:"items"`
	}
	if err := json.Unmarshal([]byte(kubectl(t, "get", "storageclasses", "--output", "json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, class := range list.Items {
		if class.Metadata.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" {
			return true
		}
	}
	return false
}

// aNode returns a node that takes pods: its name, and the value of its label
// kubernetes.io/hostname, by which others are held to it.
func aNode(t testing.TB) (name, hostname string) {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Name   string            `json:"name"`
				Labels map[string]string `json:"labels"`
			} `json:"metadata"`
			Spec struct {
				Unschedulable bool `json:"unschedulable"`
				Taints        []struct {
					Effect string `json:"effect"`
				} `json:"taints"`
			} `json:"spec"`
			Status struct {
				Conditions []condition `json:"conditions"`
			} `json:"status"`
		} `json:"items"`
	}
	if err := json.Unmarshal([]byte(kubectl(t, "get", "nodes", "--output", "json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, node := range list.Items {
		usable := !node.Spec.Unschedulable
		for _, taint := range node.Spec.Taints {
			usable = usable && taint.Effect == "PreferNoSchedule"
		}
		for _, c := range node.Status.Conditions {
			usable = usable && (c.Type != "Ready" || c.Status == "True")
		}
		if usable {
			return node.Metadata.Name, node.Metadata.Labels["kubernetes.io/hostname"]
		}
	}
	t.Fatal("no node takes pods")
	return "", ""
}

// volumes sees to it that these claims of the namespace, which others make, get
// a volume. Where the cluster has a default storage class nothing has to be
// done; else it is a directory of a node, for the user and group 65532.
func (n *namespace) volumes(claims ...string) {
	n.t.Helper()
	if defaultClass(n.t) {
		return
	}
	node, hostname := aNode(n.t)
	base := "/var/tmp/" + n.name
	n.directory(node, base, claims...)
	for _, claim := range claims {
		name := n.name + "-" + claim
		n.t.Cleanup(func() { run("", "kubectl", "delete", "persistentvolume", name, "--wait=false") })
		n.apply(fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: %s}
spec:
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ""
  claimRef: {namespace: %s, name: %s}
  hostPath: {path: %s/%s, type: Directory}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%q]}]
`, name, n.name, claim, base, claim, hostname))
	}
}

// directory makes a directory on a node, with others in it that are of the user
// and group 65532, as those of a volume with that fsGroup are, and has it removed
// when the namespace is gone.
func (n *namespace) directory(node, base string, inside ...string) {
	n.t.Helper()
	n.after(func() { asRoot(n.t, node, "rm", "-rf", base) })
	var paths []string
	for _, d := range inside {
		paths = append(paths, base+"/"+d)
	}
	asRoot(n.t, node, append([]string{"sh", "-c", `mkdir -p "$@" && chown 65532:65532 "$@" && chmod 2775 "$@"`, "sh"}, paths...)...)
}

// asRoot runs a command on a node's /var/tmp, as its root may, and returns what
// it said.
func asRoot(t testing.TB, node string, command ...string) string {
	t.Helper()
	words, err := json.Marshal(command)
	if err != nil {
		t.Fatal(err)
	}
	n := newNamespace(t, privileged)
	n.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: root}
spec:
  nodeName: %s
  restartPolicy: Never
  automountServiceAccountToken: false
  containers:
  - name: root
    image: %s
    command: %s
    securityContext: {runAsUser: 0}
    volumeMounts: [{name: tmp, mountPath: /var/tmp}]
  volumes: [{name: tmp, hostPath: {path: /var/tmp}}]
`, node, busyboxImage(t), words))
	p := n.untilPod("root", "has ended", pod.ended)
	said := n.kubectl("logs", "root")
	if p.Status.Phase != "Succeeded" {
		t.Fatalf("%q on %s ended as %s:\n%s", command, node, p.Status.Phase, said)
	}
	n.dull = true
	return said
}
