package chart

import (
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// leaf is a value that has no others in it by default.
type leaf struct {
	path     string // a.b.c
	fallback any
}

// leaves are those of values.yaml, in the order of their paths.
func leaves(t *testing.T) (all []leaf) {
	t.Helper()
	var values map[string]any
	if err := yaml.UnmarshalStrict([]byte(readFile(t, chartDir+"/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		if m, ok := value.(map[string]any); ok && len(m) > 0 {
			for _, key := range slices.Sorted(maps.Keys(m)) {
				walk(strings.TrimPrefix(path+"."+key, "."), m[key])
			}
			return
		}
		all = append(all, leaf{path, value})
	}
	walk("", values)
	return all
}

// with is a row with this value of s3daemon's chart in place of what it has.
func (r row) with(path string, value any) row {
	r.values = copied(r.values)
	at := r.values
	if r.chart == "writer" {
		path = "s3daemon." + path
	}
	keys := strings.Split(path, ".")
	for _, key := range keys[:len(keys)-1] {
		next, ok := at[key].(map[string]any)
		if !ok {
			next = make(map[string]any)
			at[key] = next
		}
		at = next
	}
	at[keys[len(keys)-1]] = value
	return r
}

// parent is the path of the object that has what is at this path.
func parent(path string) string { return path[:max(0, strings.LastIndex(path, "."))] }

// quantities and maps of any names are the values for which more is taken than
// what they are by default.
var (
	quantity = regexp.MustCompile(`\.(cpu|memory|size|sizeLimit)$`) // numbers too
	anyNames = []string{"dashboard.labels"}
	anyCount = []string{"node.updateStrategy.rollingUpdate.maxUnavailable"} // percentages too
)

// TestMistakesAreRefused: the schema takes no name that the chart does not have,
// so it has all that there are, and no value that is of another type than the
// default: 1.10 is no tag.
func TestMistakesAreRefused(t *testing.T) {
	t.Parallel()
	log.SetOutput(io.Discard) // helm notes what it merges
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	everything := rowNamed(t, "everything")
	refused := func(path string, values ...any) {
		t.Helper()
		for _, value := range values {
			if _, _, err := everything.with(path, value).render(); err == nil || !strings.Contains(err.Error(), "the schema") {
				t.Errorf("%s: %#v is not refused by the schema: %v", path, value, err)
			}
		}
	}
	objects := map[string]bool{"": true}
	for _, l := range leaves(t) {
		switch l.fallback.(type) {
		case string:
			refused(l.path, true, []any{"a"})
			if !quantity.MatchString(l.path) {
				refused(l.path, 1.1)
			}
		case bool:
			refused(l.path, "true", 1)
		case float64:
			refused(l.path, true, -1.5)
			if !slices.Contains(anyCount, l.path) {
				refused(l.path, "many", -1)
			}
		default:
			refused(l.path, "a", 2)
		}
		for object := parent(l.path); object != ""; object = parent(object) {
			objects[object] = true
		}
	}
	for object := range objects {
		if object != "" {
			refused(object, "a")
		}
		if !slices.Contains(anyNames, object) {
			refused(strings.TrimPrefix(object+".misspelt", "."), 1)
		}
	}
}

// mayBeNull are objects whose members Kubernetes knows what to do without.
var mayBeNull = regexp.MustCompile(`^(podS|s)ecurityContext\.|^(send\.)?resources\.|^dashboard\.labels\.|^node\.updateStrategy\.rollingUpdate`)

// TestNulls: null takes a default away, in a chart of a writer too. Where there
// is none it is as if nothing had been said; elsewhere it is refused by the
// schema, before a template trips over it.
func TestNulls(t *testing.T) {
	t.Parallel()
	var all []leaf
	for _, l := range leaves(t) {
		all = append(all, l)
		for object := parent(l.path); object != ""; object = parent(object) {
			if !slices.ContainsFunc(all, func(l leaf) bool { return l.path == object }) {
				all = append(all, leaf{object, map[string]any{"": nil}})
			}
		}
	}
	for _, name := range []string{"everything", "sidecar"} {
		r := rowNamed(t, name)
		for _, l := range all {
			files, _, err := r.with(l.path, nil).render()
			switch {
			case mayBeNull.MatchString(l.path):
				if err != nil && !strings.Contains(err.Error(), "execution error at") { // what a template refuses itself
					t.Errorf("%s: %s=null: %v", name, l.path, err)
				}
			case inWords(l.fallback) != "":
				if err == nil || !strings.Contains(err.Error(), "missing propert") {
					t.Errorf("%s: %s=null is not refused by the schema: %v", name, l.path, err)
				}
			default:
				want, _, wantErr := r.with(l.path, l.fallback).render()
				if err == nil && wantErr == nil && joined(files) != joined(want) {
					t.Errorf("%s: %s=null is not as if it were not set", name, l.path)
				} else if (err == nil) != (wantErr == nil) {
					t.Errorf("%s: %s=null: %v; not set: %v", name, l.path, err, wantErr)
				}
			}
		}
	}
}

// others are values to try where no other is easily made of the default.
var others = map[string]any{
	"credentials.as":                         "env",
	"drain.what":                             "queue",
	"extraEnv":                               []any{map[string]any{"name": "A", "value": "b"}},
	"extraVolumes":                           []any{map[string]any{"name": "more", "emptyDir": map[string]any{}}},
	"extraVolumeMounts":                      []any{map[string]any{"name": "data", "mountPath": "/more"}},
	"image.digest":                           "sha256:" + strings.Repeat("0", 64),
	"image.pullPolicy":                       "Never",
	"imagePullSecrets":                       []any{map[string]any{"name": "a"}},
	"journal.in":                             "claimTemplate",
	"networkPolicy.scrapeFrom":               []any{map[string]any{"podSelector": map[string]any{}}},
	"networkPolicy.storeAt":                  []any{map[string]any{"podSelector": map[string]any{}}},
	"networkPolicy.storePorts":               []any{1},
	"node.affinity":                          map[string]any{"podAffinity": map[string]any{}},
	"node.dataDirectories":                   []any{"/x"},
	"node.mountPropagation":                  "None",
	"node.socketMode":                        "0600",
	"node.tolerations":                       []any{map[string]any{"operator": "Exists"}},
	"node.updateStrategy.type":               "OnDelete",
	"podSecurityContext.seccompProfile.type": "Unconfined",
	"probes.by":                              "http",
	"securityContext.seccompProfile.type":    "Unconfined",
	"settings":                               map[string]any{"S3DAEMON_ATTEMPTS": 3},
	"sidecar.dataMounts":                     []any{map[string]any{"name": "data", "mountPath": "/x"}},
	"store.endpoint":                         "http://x",
}

// TestEveryValueHasAnEffect alters one after another, and finds a row of which
// helm then makes something else.
func TestEveryValueHasAnEffect(t *testing.T) {
	t.Parallel()
	rows := matrix(t)
	slices.SortStableFunc(rows, func(a, b row) int { return len(b.values) - len(a.values) }) // those that have most come first
	unaltered := make([]string, len(rows))
	for i, r := range rows {
		files, _, err := r.render()
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		unaltered[i] = joined(files)
	}
	for _, l := range leaves(t) {
		var said error
		hasEffect := func() bool {
			for i, r := range rows {
				for _, value := range altered(l) {
					files, _, err := r.with(l.path, value).render()
					if err == nil && joined(files) != unaltered[i] {
						return true
					}
					said = err
				}
			}
			return false
		}
		if !hasEffect() {
			t.Errorf("nothing changes with %s=%v\n%v", l.path, altered(l), said)
		}
	}
}

// altered is one or more values that are not, or not everywhere, what this is.
func altered(l leaf) []any {
	if other, found := others[l.path]; found {
		return []any{other}
	}
	switch v := l.fallback.(type) {
	case bool:
		return []any{!v, v}
	case float64:
		return []any{v + 1}
	case string:
		if v != "" && v[0] >= '0' && v[0] <= '9' { // as in 5m or 64Mi
			return []any{"1" + v}
		}
		return []any{v + "x"}
	case []any:
		return []any{[]any{"x"}}
	case map[string]any:
		return []any{map[string]any{"x": "y"}}
	}
	return []any{1}
}

// theCharts are variables that the chart sets, each by a value of its own.
var theCharts = []string{
	"S3DAEMON_LISTEN", "S3DAEMON_SOCKET_MODE", "S3DAEMON_SOCKET_GROUP", "S3DAEMON_OPS_LISTEN", "S3DAEMON_TOKEN_FILE",
	"S3DAEMON_DATA_DIR", "S3DAEMON_JOURNAL_WAIT", "S3DAEMON_DRAIN", "S3DAEMON_DRAIN_TIMEOUT",
}

// TestSettings: each variable of the daemon can be set, but for those that have
// another place, and no other.
func TestSettings(t *testing.T) {
	t.Parallel()
	sidecar := rowNamed(t, "sidecar")
	source := readFile(t, "../../config.go")
	for _, m := range regexp.MustCompile(`envconfig:"(S3DAEMON_\w+)"`).FindAllStringSubmatch(source, -1) {
		name := m[1]
		files, _, err := sidecar.with("settings", map[string]any{name: "some value"}).render()
		isChart := slices.Contains(theCharts, name)
		if isChart != (err != nil) {
			t.Errorf("settings.%s: %v", name, err)
		}
		if want := fmt.Sprintf("- name: %s\n              value: \"some value\"\n", name); !isChart && strings.Count(joined(files), want) != 1 {
			t.Errorf("settings.%s is not set", name)
		}
	}
	for _, name := range []string{"S3DAEMON_QUEUELIMIT", "S3DAEMON_URL", "S3_ENDPOINT_URL", "AWS_REGION", "QUEUE_LIMIT"} {
		if _, _, err := sidecar.with("settings", map[string]any{name: "a"}).render(); err == nil {
			t.Errorf("settings.%s is not refused", name)
		}
	}
}
