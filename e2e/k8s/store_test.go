package k8s

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lsst-dm/s3daemon/e2e/k8s/content"
)

// store is an S3 store in a pod, which forgets everything when that ends.
// Its credentials are in the Secret storeSecret of the same namespace.
type store struct {
	n        *namespace
	endpoint string // as S3_ENDPOINT_URL, from anywhere in the cluster
	id       string // AWS_ACCESS_KEY_ID
	secret   string // AWS_SECRET_ACCESS_KEY
}

// storeSecret is the name of the Secret with the credentials of the namespace's
// store.
const storeSecret = "s3-credentials"

// startStore starts a store with these buckets, and returns when it serves.
func (n *namespace) startStore(buckets ...string) *store {
	n.t.Helper()
	s := &store{n: n, endpoint: fmt.Sprintf("http://store.%s.svc:9000", n.name), id: "E2E" + rand.Text()[:13], secret: rand.Text()}
	n.credentials(storeSecret, s.id, s.secret)
	args, err := json.Marshal(append([]string{"store"}, buckets...))
	if err != nil {
		n.t.Fatal(err)
	}
	n.apply(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: store}
spec:
  selector: {app: store}
  ports: [{name: s3, port: 9000}, {name: control, port: 9001}]
---
apiVersion: v1
kind: Pod
metadata: {name: store, labels: {app: store}}
spec:
  enableServiceLinks: false
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers:
  - name: store
    image: %s
    args: %s
    envFrom: [{secretRef: {name: %s}}]
    readinessProbe: {httpGet: {path: /counts, port: 9001}, periodSeconds: 1}
    securityContext: %s
`, toolImage(n.t), args, storeSecret, safe))
	n.untilReady("store")
	return s
}

// safe is the security context of a container that the restricted standard
// takes.
const safe = `{runAsNonRoot: true, runAsUser: 65532, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}`

// credentials makes a Secret with credentials, or changes it.
func (n *namespace) credentials(secret, id, key string) {
	n.t.Helper()
	n.apply(fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: %s}
stringData: {AWS_ACCESS_KEY_ID: %q, AWS_SECRET_ACCESS_KEY: %q}
`, secret, id, key))
}

// ask makes a request to the store's second address, from within its pod.
func (s *store) ask(method, path, body string) (string, error) {
	said, err := s.n.try("exec", "store", "--", "/tool", "ask", method, "http://127.0.0.1:9001"+path, body)
	if err != nil {
		return "", err
	}
	var answer struct {
		Status int    `json:"status"`
		Body   string `json:"body"`
	}
	if err := json.Unmarshal([]byte(said.stdout), &answer); err != nil {
		return "", err
	}
	if answer.Status != http.StatusOK {
		return "", fmt.Errorf("the store answers %s %s with %d: %s", method, path, answer.Status, answer.Body)
	}
	return answer.Body, nil
}

// setRate limits how many bytes a second the store takes, of all requests
// together; 0: no limit.
func (s *store) setRate(perSecond int) {
	s.n.t.Helper()
	if _, err := s.ask("PUT", "/rate", strconv.Itoa(perSecond)); err != nil {
		s.n.t.Fatal(err)
	}
}

// setCredentials has the store take these, each ID:SECRET, and refuse all others
// from now on.
func (s *store) setCredentials(pairs ...string) {
	s.n.t.Helper()
	if _, err := s.ask("PUT", "/credentials", strings.Join(pairs, "\n")); err != nil {
		s.n.t.Fatal(err)
	}
}

// counts are the store's, of requests.
type counts struct {
	Requests int `json:"requests"`
	Refused  int `json:"refused"`   // 403
	UnderWay int `json:"under_way"` // which send a body just now

	Taken map[string]int `json:"taken"` // requests that were not refused, by the key's id
}

func (s *store) counts() counts {
	s.n.t.Helper()
	body, err := s.ask("GET", "/counts", "")
	var c counts
	if err == nil {
		err = json.Unmarshal([]byte(body), &c)
	}
	if err != nil {
		s.n.t.Fatal(err)
	}
	return c
}

// object is one at the store.
type object struct {
	Bucket    string    `json:"bucket"`
	Key       string    `json:"key"`
	Size      int64     `json:"size"`
	SHA256    string    `json:"sha256"`
	Writes    int       `json:"writes"` // how often it was made or replaced
	WrittenAt time.Time `json:"written_at"`
}

// objects returns what the store has, by BUCKET/KEY.
func (s *store) objects() map[string]object {
	s.n.t.Helper()
	all, err := s.tryObjects()
	if err != nil {
		s.n.t.Fatal(err)
	}
	return all
}

func (s *store) tryObjects() (map[string]object, error) {
	body, err := s.ask("GET", "/objects", "")
	if err != nil {
		return nil, err
	}
	var list []object
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		return nil, err
	}
	all := make(map[string]object)
	for _, o := range list {
		all[o.Bucket+"/"+o.Key] = o
	}
	return all, nil
}

// untilObjects waits until the store has that many objects, and fails the test
// where one is not what the writers made: its name and size tell its bytes.
func (s *store) untilObjects(limit time.Duration, number int) map[string]object {
	s.n.t.Helper()
	var all map[string]object
	s.n.until(limit, fmt.Sprintf("the store has %d objects", number), func() (err error) {
		if all, err = s.tryObjects(); err == nil && len(all) < number {
			err = fmt.Errorf("it has %d", len(all))
		}
		return err
	})
	if len(all) != number {
		s.n.t.Errorf("the store has %d objects, want %d", len(all), number)
	}
	s.check(all)
	return all
}

// check fails the test where an object has other bytes than its writer made.
func (s *store) check(all map[string]object) {
	s.n.t.Helper()
	for path, o := range all {
		name := o.Key[strings.LastIndex(o.Key, "/")+1:]
		if want := content.Digest(name, o.Size); o.SHA256 != want {
			s.n.t.Errorf("%s has %d bytes with SHA-256 %s, not those of the file", path, o.Size, o.SHA256)
		}
	}
}
