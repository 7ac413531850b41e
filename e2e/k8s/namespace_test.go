package k8s

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The levels of the Pod Security Standard that a namespace can enforce.
const (
	restricted = "restricted"
	privileged = "privileged" // for what mounts directories of the node
)

// namespace is one that a test has for itself.
type namespace struct {
	t    testing.TB
	name string
	dull bool     // nothing in it is worth telling when the test fails
	last []func() // what is done when it is gone
}

// newNamespace makes a namespace that enforces that level of the Pod Security
// Standard. It is removed at the test's end, with all that is in it; a test that
// failed tells before what became of its pods. S3DAEMON_E2E_KEEP=1 leaves it.
func newNamespace(t testing.TB, level string) *namespace {
	t.Helper()
	needCluster(t)
	words := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "-")
	n := &namespace{t: t, name: strings.Trim(fmt.Sprintf("s3daemon-e2e-%.30s", words), "-") + "-" + strings.ToLower(rand.Text()[:5])}
	kubectl(t, "create", "namespace", n.name)
	t.Cleanup(n.remove)
	kubectl(t, "label", "namespace", n.name, "pod-security.kubernetes.io/enforce="+level, "pod-security.kubernetes.io/warn="+level)
	// Pods are refused until it is there.
	n.until(patience, "the default service account is there", func() error {
		_, err := n.try("get", "serviceaccount", "default")
		return err
	})
	return n
}

func (n *namespace) remove() {
	if n.t.Failed() && !n.dull {
		n.diagnose()
	}
	if os.Getenv("S3DAEMON_E2E_KEEP") == "1" {
		n.t.Logf("the namespace %s is left", n.name)
		return
	}
	// Pods that a failed test leaves may take their whole grace period else.
	n.try("delete", "pods,statefulsets,deployments,daemonsets,jobs", "--all", "--wait=false", "--grace-period=1")
	if _, err := run("", "kubectl", "delete", "namespace", n.name, "--timeout=120s"); err != nil {
		n.t.Errorf("remove the namespace: %v", err)
	}
	for _, do := range n.last {
		do()
	}
}

// after has something done when the namespace is gone, and all that ran in it.
func (n *namespace) after(do func()) { n.last = append(n.last, do) }

// diagnose says what a person would look at.
func (n *namespace) diagnose() {
	for _, args := range [][]string{
		{"get", "all,persistentvolumeclaims", "--output", "wide"},
		{"describe", "pods"},
		{"get", "events", "--sort-by=.lastTimestamp"},
	} {
		s, _ := n.try(args...)
		n.t.Logf("kubectl %s\n%s", strings.Join(args, " "), tail(s.stdout+s.stderr, 12000))
	}
	for _, p := range n.pods("") {
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			for _, which := range []string{"--previous=false", "--previous=true"} {
				if s, err := n.try("logs", p.Metadata.Name, "--container", c.Name, which, "--tail=50"); err == nil && s.stdout != "" {
					n.t.Logf("kubectl logs %s -c %s %s\n%s", p.Metadata.Name, c.Name, which, tail(s.stdout, 8000))
				}
			}
		}
	}
}

// pod is what the tests look at of one.
type pod struct {
	Metadata struct {
		Name              string            `json:"name"`
		UID               string            `json:"uid"`
		Labels            map[string]string `json:"labels"`
		DeletionTimestamp *time.Time        `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		NodeName                      string `json:"nodeName"`
		TerminationGracePeriodSeconds int    `json:"terminationGracePeriodSeconds"`
	} `json:"spec"`
	Status struct {
		Phase                 string      `json:"phase"`
		Reason                string      `json:"reason"`
		PodIP                 string      `json:"podIP"`
		StartTime             time.Time   `json:"startTime"`
		Conditions            []condition `json:"conditions"`
		InitContainerStatuses []container `json:"initContainerStatuses"`
		ContainerStatuses     []container `json:"containerStatuses"`
	} `json:"status"`
}

type condition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"`
	Reason             string    `json:"reason"`
	Message            string    `json:"message"`
	LastTransitionTime time.Time `json:"lastTransitionTime"`
}

// container is the status of one, of either kind.
type container struct {
	Name         string         `json:"name"`
	Ready        bool           `json:"ready"`
	Started      *bool          `json:"started"`
	RestartCount int            `json:"restartCount"`
	State        containerState `json:"state"`
	LastState    containerState `json:"lastState"`
}

type containerState struct {
	Waiting *struct {
		Reason  string `json:"reason"`
		Message string `json:"message"`
	} `json:"waiting"`
	Running *struct {
		StartedAt time.Time `json:"startedAt"`
	} `json:"running"`
	Terminated *terminated `json:"terminated"`
}

type terminated struct {
	ExitCode   int       `json:"exitCode"`
	Reason     string    `json:"reason"`
	Message    string    `json:"message"`
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt"`
}

// container returns the status of a container by its name; an empty one where
// there is none yet.
func (p pod) container(name string) container {
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if c.Name == name {
			return c
		}
	}
	return container{}
}

// ready reports whether all that the pod has is ready.
func (p pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

// ended reports whether all that the pod is for has ended.
func (p pod) ended() bool { return p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" }

// pods returns those that the labels select, all where they are "".
func (n *namespace) pods(labels string) []pod {
	n.t.Helper()
	var list struct {
		Items []pod `json:"items"`
	}
	s, err := n.try("get", "pods", "--output", "json", "--selector", labels)
	if err == nil {
		err = json.Unmarshal([]byte(s.stdout), &list)
	}
	if err != nil {
		n.t.Error(err)
	}
	return list.Items
}

// pod returns one by its name.
func (n *namespace) pod(name string) (p pod, err error) {
	s, err := n.try("get", "pod", name, "--output", "json")
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal([]byte(s.stdout), &p)
}

// untilReady waits until the pod is ready, and returns it.
func (n *namespace) untilReady(name string) pod {
	n.t.Helper()
	return n.untilPod(name, "is ready", pod.ready)
}

// untilPod waits until the pod is there and what is asked of it is so.
func (n *namespace) untilPod(name, what string, so func(pod) bool) (p pod) {
	n.t.Helper()
	n.until(patience, "pod "+name+" "+what, func() (err error) {
		if p, err = n.pod(name); err == nil && !so(p) {
			err = fmt.Errorf("it is %s", p.Status.Phase)
		}
		return err
	})
	return p
}
