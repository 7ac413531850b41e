package k8s

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"strings"
	"testing"
)

// node is a release of the chart that has one daemon a node, here on one of the
// cluster's nodes, beside a store in the same namespace. Writers are in other
// namespaces, and reach it through directories of the node.
type node struct {
	n              *namespace
	s              *store
	name, hostname string // of the cluster's node; see aNode
	base           string // of the directories on it that follow
	socket         string // of the daemon's socket
	data           string // of the writers' files, which are of its group, dataGroup
}

const (
	dataGroup   = 65532
	socketGroup = 15556 // as the chart has it by default
)

// startNode installs the chart with one daemon a node and these values besides,
// and returns when the daemon is ready.
func startNode(t testing.TB, values map[string]any) *node {
	t.Helper()
	n := newNamespace(t, privileged)
	base := "/var/tmp/" + n.name
	d := &node{n: n, base: base, socket: base + "/socket", data: base + "/data"}
	d.name, d.hostname = aNode(t)
	n.directory(d.name, base, "data")
	asRoot(t, d.name, "chmod", "2775", d.data) // what is made in it is of its group
	d.s = n.startStore("raw")
	d.upgrade(values)
	return d
}

// upgrade installs the release with other values, and returns when its daemon
// has been replaced, if it had to be.
func (d *node) upgrade(values map[string]any) said {
	d.n.t.Helper()
	s := d.n.install("node", chart(d.n.t), jsonValues(d.n.t, merged(d.values(), values)))
	d.untilRolledOut()
	return s
}

func (d *node) untilRolledOut() {
	d.n.t.Helper()
	d.n.kubectl("rollout", "status", "daemonset", "--selector=app.kubernetes.io/instance=node", "--timeout=120s")
}

// values are those that each of the releases has.
func (d *node) values() map[string]any {
	return map[string]any{
		"image":       imageValues(image(d.n.t)),
		"store":       map[string]any{"endpoint": d.s.endpoint},
		"credentials": map[string]any{"secret": storeSecret},
		"node": map[string]any{
			"enabled": true, "socketDirectory": d.socket, "journalDirectory": d.base + "/journal",
			"dataDirectories": []string{d.data}, "mountPropagation": "None",
			"nodeSelector": map[string]any{"kubernetes.io/hostname": d.hostname},
		},
	}
}

// merged returns values with others over them, as helm puts one file of values
// over another.
func merged(values, over map[string]any) map[string]any {
	all := maps.Clone(values)
	for name, value := range over {
		below, _ := all[name].(map[string]any)
		if above, ok := value.(map[string]any); ok && below != nil {
			value = merged(below, above)
		}
		all[name] = value
	}
	return all
}

// daemon returns the release's pod, which is ready.
func (d *node) daemon() pod {
	d.n.t.Helper()
	var found pod
	d.n.until(patience, "one daemon of the release is ready", func() error {
		pods := d.n.pods("app.kubernetes.io/instance=node")
		if len(pods) != 1 || !pods[0].ready() {
			return fmt.Errorf("%d pods", len(pods))
		}
		found = pods[0]
		return nil
	})
	return found
}

// writer starts a pod in the namespace that writes to the daemon's node, as the
// user 2000, who is in these groups beside that of the same number and that of
// the data; what else it is told is for tool write.
func (d *node) writer(n *namespace, name string, groups []int, env string, args ...string) *followed {
	n.t.Helper()
	return d.writerOn(n, name, byHostPath, groups, env, args...)
}

// The ways in which a pod may have a directory of the node.
func byHostPath(directory string) string {
	return fmt.Sprintf("hostPath: {path: %s, type: Directory}", directory)
}

func byClaim(directory string) string {
	return fmt.Sprintf("persistentVolumeClaim: {claimName: %s}", path.Base(directory))
}

// writerOn is writer, with another way to the directories of the node.
func (d *node) writerOn(n *namespace, name string, volume func(string) string, groups []int, env string, args ...string) *followed {
	n.t.Helper()
	words := append([]string{"write", "-dir", d.data, "-name", name, "-send", "/opt/s3daemon/send"}, args...)
	list, err := json.Marshal(append(words, "s3://raw/"+n.name+"/"))
	if err != nil {
		n.t.Fatal(err)
	}
	numbers, err := json.Marshal(append([]int{dataGroup}, groups...))
	if err != nil {
		n.t.Fatal(err)
	}
	n.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s}
spec:
  nodeName: %[2]s
  restartPolicy: Never
  terminationGracePeriodSeconds: 150
  enableServiceLinks: false
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 2000, runAsGroup: 2000, supplementalGroups: %[3]s, seccompProfile: {type: RuntimeDefault}}
  initContainers:
  - name: install-send
    image: %[4]s
    command: [/send, -install, /opt/s3daemon]
    securityContext: %[10]s
    volumeMounts: [{name: bin, mountPath: /opt/s3daemon}]
  containers:
  - name: writer
    image: %[5]s
    args: %[6]s
    securityContext: %[10]s
    env:
    - {name: S3DAEMON_URL, value: "unix:%[7]s/s3daemon.sock"}
    %[9]s
    volumeMounts:
    - {name: socket, mountPath: %[7]s, readOnly: true}
    - {name: data, mountPath: %[8]s}
    - {name: bin, mountPath: /opt/s3daemon}
  volumes:
  - {name: socket, %[11]s}
  - {name: data, %[12]s}
  - {name: bin, emptyDir: {}}
`, name, d.name, numbers, image(n.t), toolImage(n.t), list, d.socket, d.data, env,
		"{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}",
		volume(d.socket), volume(d.data)))
	n.untilPod(name, "runs", func(p pod) bool { return p.Status.Phase == "Running" || p.ended() })
	return n.follow(name, "writer")
}

// TestNode has writers in pods of another namespace push through the socket of
// the daemon on their node.
func TestNode(t *testing.T) {
	t.Parallel()
	d := startNode(t, nil)
	n := newNamespace(t, privileged)

	t.Log("a writer who is another user, and in the group of the socket")
	const files = 5
	d.writer(n, "member", []int{socketGroup}, "", "-files", fmt.Sprint(files), "-j", "2", "-size", "300000", "-stay")
	objects := d.s.untilObjects(patience, files)
	for key, o := range objects {
		if o.Size != 300000 || !strings.HasPrefix(key, "raw/"+n.name+"/member-") {
			t.Errorf("the store has %s of %d bytes", key, o.Size)
		}
	}

	t.Log("what it may not have pushed")
	for file, want := range map[string]string{
		"/etc/passwd":                        "file_not_allowed", // which is there, in the daemon's container or not
		d.data + "/../journal/journal.db":    "file_not_allowed",
		d.data + "/nothing":                  "file_not_found",
		"/proc/self/environ":                 "file_not_allowed",
		"/var/run/secrets/kubernetes.io/any": "file_not_allowed",
	} {
		if code := refusal(n, "member", "file="+file+"&destination=s3://raw/stolen"); code != want {
			t.Errorf("a push of %s is answered %q, want %q", file, code, want)
		}
	}

	t.Log("a writer who is not in the group")
	other := d.writer(n, "stranger", []int{2001}, "", "-files", "1")
	line := untilSays(other, "what became of its file", func(l written) bool { return l.File != "" })
	if line.OK || !strings.Contains(line.Answer, "permission denied") {
		t.Errorf("its push ended as %+v", line)
	}
	if all := d.s.objects(); len(all) != files {
		t.Errorf("the store has %d objects, want %d", len(all), files)
	}
}

// TestNodeGivenAway changes who the daemon of a node is after it has been there:
// each gets the directories of the one before, with the journal.
func TestNodeGivenAway(t *testing.T) {
	t.Parallel()
	d := startNode(t, nil)
	n := newNamespace(t, privileged)
	for i, c := range []struct {
		values        map[string]any
		group         int
		socket, owner string // of the socket's directory, and of the journal
	}{
		{nil, socketGroup, "65532:15556 711", "65532"},
		{map[string]any{"node": map[string]any{"socketGroup": 1001}}, 1001, "65532:1001 711", "65532"},
		{map[string]any{"node": map[string]any{"socketGroup": 1001}, "securityContext": map[string]any{"runAsUser": 1500}}, 1001, "1500:1001 711", "1500"},
	} {
		d.upgrade(c.values)
		name := fmt.Sprintf("writer%d", i)
		d.writer(n, name, []int{c.group}, "", "-files", "1", "-stay")
		d.s.untilObjects(patience, i+1)
		if got := strings.TrimSpace(asRoot(t, d.name, "stat", "-c", "%u:%g %a", d.socket)); got != c.socket {
			t.Errorf("the socket's directory is %s, want %s", got, c.socket)
		}
		if got := strings.TrimSpace(asRoot(t, d.name, "stat", "-c", "%u", d.base+"/journal/journal.db")); got != c.owner {
			t.Errorf("the journal is the user %s's, want %s", got, c.owner)
		}
		var answer struct {
			Body string `json:"body"`
		}
		if err := json.Unmarshal([]byte(n.exec(name, "writer", "/tool", "ask", "GET", "/pushes?state=done&limit=10")), &answer); err != nil {
			t.Fatal(err)
		}
		if known := strings.Count(answer.Body, `"destination":"s3://raw/`+n.name+"/"); known != i+1 {
			t.Errorf("the daemon knows of %d pushes, want %d: %s", known, i+1, answer.Body)
		}
	}
}

// refusal asks the daemon for a push from within a writer's pod, and returns the
// code of its answer.
func refusal(n *namespace, pod, form string) string {
	n.t.Helper()
	var answer struct {
		Status int    `json:"status"`
		Body   string `json:"body"`
	}
	var problem struct {
		Code string `json:"code"`
	}
	err := json.Unmarshal([]byte(n.exec(pod, "writer", "/tool", "ask", "POST", "/push", form)), &answer)
	if err == nil {
		err = json.Unmarshal([]byte(answer.Body), &problem)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return problem.Code
}

// TestNodeClaims has a writer where hostPath is refused, since the restricted
// standard is enforced, reach the daemon by claims: an administrator has made a
// volume of each directory.
func TestNodeClaims(t *testing.T) {
	t.Parallel()
	d := startNode(t, nil)
	n := newNamespace(t, restricted)
	for _, directory := range []string{d.socket, d.data} {
		claim := path.Base(directory)
		name := n.name + "-" + claim
		t.Cleanup(func() { run("", "kubectl", "delete", "persistentvolume", name, "--wait=false") })
		n.apply(fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s}
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ""
  claimRef: {namespace: %[2]s, name: %[3]s}
  hostPath: {path: %[4]s, type: Directory}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %[3]s}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: ""
  volumeName: %[1]s
  resources: {requests: {storage: 1Mi}}
`, name, n.name, claim, directory))
	}
	d.writerOn(n, "member", byClaim, []int{socketGroup}, "", "-files", "3")
	d.s.untilObjects(patience, 3)
}
