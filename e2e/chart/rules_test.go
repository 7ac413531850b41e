package chart

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chartutil"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// rendered is what helm makes of a row, taken apart.
type rendered struct {
	objects []object
	pods    []pod
	values  chartutil.Values // of s3daemon's chart
}

// rule is what must hold of every row: it returns what is wrong, a line each.
type rule struct {
	name  string
	wrong func(rendered) complaints
}

var rules = []rule{
	{"names and labels are such as Kubernetes takes", names},
	{"no two objects have one name", unique},
	{"selectors find what they are for", selectors},
	{"the restricted Pod Security Standard", restricted},
	{"pods get nothing that they do not use", frugal},
	{"there is time to end", graceful},
	{"probes", probes},
	{"resources", resources},
	{"what is mounted is there, and what is there is mounted", mounted},
	{"secrets are mounted so that they are renewed", renewed},
	{"variables", variables},
	{"files that variables name are mounted", reachable},
	{"writers and daemons agree", agreed},
	{"alerts and dashboard are those of the files", verbatim},
}

// broken says what is wrong with files that helm rendered with these values.
func broken(files map[string]string, values chartutil.Values) (wrong []string) {
	objects, err := decode(files)
	if err != nil {
		return []string{err.Error()}
	}
	r := rendered{objects, podsOf(objects), values}
	for _, rule := range rules {
		for _, line := range rule.wrong(r) {
			wrong = append(wrong, rule.name+": "+line)
		}
	}
	return wrong
}

// complaints collects what is wrong.
type complaints []string

func (c *complaints) add(format string, args ...any) { *c = append(*c, fmt.Sprintf(format, args...)) }

func names(r rendered) (wrong complaints) {
	label := func(where string, m map[string]string) {
		for key, value := range m {
			for _, problem := range append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...) {
				wrong.add("%s: label %s=%q: %s", where, key, value, problem)
			}
		}
	}
	dns := func(where, name string) {
		for _, problem := range validation.IsDNS1123Label(name) {
			wrong.add("%s: %q: %s", where, name, problem)
		}
	}
	for _, o := range r.objects {
		dns(o.name, o.meta.GetName())
		label(o.name, o.meta.GetLabels())
		if _, isSet := o.Object.(*appsv1.StatefulSet); isSet && len(o.meta.GetName()) > 52 {
			wrong.add("%s: its pods' label controller-revision-hash would be too long", o.name)
		}
	}
	for _, p := range r.pods {
		label(p.of, p.meta.Labels)
		var seen []string
		for _, c := range p.containers() {
			dns(p.of, c.Name)
			for _, port := range c.Ports {
				for _, problem := range validation.IsValidPortName(port.Name) {
					wrong.add("%s: port %q: %s", p.of, port.Name, problem)
				}
			}
			if slices.Contains(seen, c.Name) {
				wrong.add("%s: two containers %s", p.of, c.Name)
			}
			seen = append(seen, c.Name)
		}
	}
	return wrong
}

func unique(r rendered) (wrong complaints) {
	seen := make(map[string]bool)
	for _, o := range r.objects {
		if seen[o.name] {
			wrong.add("%s is there twice", o.name)
		}
		seen[o.name] = true
	}
	return wrong
}

// selectors are those of controllers, which must match their pods and no others
// of the release; and of a StatefulSet's Service and account, which must exist
// where the release has to make them.
func selectors(r rendered) (wrong complaints) {
	has := func(name string) bool {
		return slices.ContainsFunc(r.objects, func(o object) bool { return o.name == name })
	}
	for _, p := range r.pods {
		for _, other := range r.pods {
			if p.selector != nil && labels.SelectorFromSet(p.selector).Matches(labels.Set(other.meta.Labels)) != (p.of == other.of) {
				wrong.add("%s selects pods of %s, or does not select its own", p.of, other.of)
			}
		}
		account := p.spec.ServiceAccountName
		if created, _ := r.values.PathValue("serviceAccount.create"); account != "" && created == true && !has("ServiceAccount/"+account) {
			wrong.add("%s runs as %s, which nobody makes", p.of, account)
		}
	}
	for _, o := range r.objects {
		if set, is := o.Object.(*appsv1.StatefulSet); is && !has("Service/"+set.Spec.ServiceName) {
			wrong.add("%s has no Service %q", o.name, set.Spec.ServiceName)
		}
	}
	return wrong
}

var standard = func() policy.Evaluator {
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(err)
	}
	return e
}()

// restricted holds for all pods, where volumes of the host and the container that
// prepares them as root are looked past.
func restricted(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		spec := p.spec.DeepCopy()
		onHost := slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil })
		spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil })
		if onHost {
			spec.InitContainers = slices.DeleteFunc(spec.InitContainers, func(c corev1.Container) bool { return c.Name == "s3daemon-prepare" })
		}
		level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
		for _, result := range standard.EvaluatePod(level, &p.meta, spec) {
			if !result.Allowed {
				wrong.add("%s: %s (%s)", p.of, result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		for _, c := range p.containers() {
			if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
				wrong.add("%s: %s may write to its image", p.of, c.Name)
			}
		}
	}
	return wrong
}

func frugal(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		if p.spec.EnableServiceLinks == nil || *p.spec.EnableServiceLinks {
			wrong.add("%s: enableServiceLinks is not false: variables of other Services would be there", p.of)
		}
		asked, _ := r.values.PathValue("serviceAccount.automount")
		if p.spec.AutomountServiceAccountToken == nil || *p.spec.AutomountServiceAccountToken != (asked == true) {
			wrong.add("%s: automountServiceAccountToken is not what was asked for", p.of)
		}
		for _, c := range p.containers() {
			if !regexp.MustCompile(`@sha256:[0-9a-f]{64}$|:[\w][\w.-]*$`).MatchString(c.Image) || strings.HasSuffix(c.Image, ":latest") {
				wrong.add("%s: %s runs %q, whatever that is today", p.of, c.Name, c.Image)
			}
		}
	}
	return wrong
}

// graceful: the daemon has its time to drain, after the writer has had its own.
func graceful(r rendered) (wrong complaints) {
	asked, _ := r.values.PathValue("sidecar.writerGraceSeconds")
	writer := time.Duration(number(asked)) * time.Second
	for _, p := range r.pods {
		isSidecar := len(p.spec.Containers) > 1 || p.spec.Containers[0].Name != "s3daemon"
		for _, c := range p.containers() {
			if isSidecar && (c.Name == "s3daemon" || c.Name == "s3daemon-legacy") {
				wrong = append(wrong, outlives(p, c, writer)...)
			}
			if c.Name != "s3daemon" {
				continue
			}
			drain, err := time.ParseDuration(env(c)["S3DAEMON_DRAIN_TIMEOUT"])
			if err != nil {
				wrong.add("%s: S3DAEMON_DRAIN_TIMEOUT: %v", p.of, err)
			}
			needed := drain + 5*time.Second
			if isSidecar {
				needed += writer
			}
			if grace := time.Duration(valueOf(p.spec.TerminationGracePeriodSeconds, 30)) * time.Second; grace < needed {
				wrong.add("%s: a grace period of %v, where %v are needed", p.of, grace, needed)
			}
		}
	}
	return wrong
}

// outlives: a sidecar goes on until the writer has ended.
func outlives(p pod, sidecar corev1.Container, writer time.Duration) (wrong complaints) {
	isInit := slices.ContainsFunc(p.spec.InitContainers, func(c corev1.Container) bool { return c.Name == sidecar.Name })
	if isInit {
		if sidecar.RestartPolicy == nil || *sidecar.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			wrong.add("%s: %s is an init container that the writer waits for", p.of, sidecar.Name)
		}
		return wrong
	}
	if sidecar.RestartPolicy != nil {
		wrong.add("%s: %s has a restart policy, which an ordinary container must not", p.of, sidecar.Name)
	}
	want := []string{"/s3daemon", "sleep", fmt.Sprintf("%.0fs", writer.Seconds())}
	hook := sidecar.Lifecycle
	if hook == nil || hook.PreStop == nil || hook.PreStop.Exec == nil || !slices.Equal(hook.PreStop.Exec.Command, want) {
		wrong.add("%s: %s is told to end while the writer still writes: its preStop is not %q", p.of, sidecar.Name, want)
	}
	return wrong
}

func probes(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			if c.Name == "s3daemon" {
				for _, line := range append(probe(c, "startup", c.StartupProbe), append(probe(c, "readiness", c.ReadinessProbe), probe(c, "liveness", c.LivenessProbe)...)...) {
					wrong.add("%s: %s", p.of, line)
				}
			}
		}
	}
	return wrong
}

// probe asks for readiness or for health, as its kind says, where the daemon
// answers.
func probe(c corev1.Container, kind string, p *corev1.Probe) (wrong complaints) {
	if p == nil {
		wrong.add("there is no %s probe", kind)
		return wrong
	}
	ready := kind == "readiness"
	switch {
	case p.Exec != nil:
		want := []string{"/s3daemon", "healthcheck"}
		if ready {
			want = append(want, "ready")
		}
		if !slices.Equal(p.Exec.Command, want) {
			wrong.add("the %s probe runs %q", kind, p.Exec.Command)
		}
		if valueOf(&p.TimeoutSeconds, 1) < 2 {
			wrong.add("the %s probe has a second, in which a process may not have begun", kind)
		}
	case p.HTTPGet != nil:
		want := "/healthz"
		if ready {
			want = "/readyz"
		}
		open := slices.ContainsFunc(c.Ports, func(port corev1.ContainerPort) bool {
			return port.Name == p.HTTPGet.Port.String() && env(c)["S3DAEMON_OPS_LISTEN"] == fmt.Sprintf(":%d", port.ContainerPort)
		})
		if p.HTTPGet.Path != want || !open {
			wrong.add("the %s probe asks for %s at %s", kind, p.HTTPGet.Path, p.HTTPGet.Port.String())
		}
	default:
		wrong.add("the %s probe asks for nothing", kind)
	}
	return wrong
}

// resources: each container says what it takes of the node, and may take what
// processor there is.
func resources(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				if c.Resources.Requests.Name(name, "").IsZero() {
					wrong.add("%s: %s requests no %s", p.of, c.Name, name)
				}
			}
			if c.Resources.Limits.Memory().IsZero() || c.Resources.Limits.Memory().Cmp(*c.Resources.Requests.Memory()) < 0 {
				wrong.add("%s: %s has no limit of memory, or one beneath what it requests", p.of, c.Name)
			}
			if !c.Resources.Limits.Cpu().IsZero() {
				wrong.add("%s: %s has a limit of CPU, by which it would stand still", p.of, c.Name)
			}
		}
	}
	return wrong
}

func mounted(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		used := make(map[string]bool)
		there := slices.Clone(p.claims)
		for _, v := range p.spec.Volumes {
			if slices.Contains(there, v.Name) {
				wrong.add("%s: two volumes %s", p.of, v.Name)
			}
			there = append(there, v.Name)
		}
		for _, c := range p.containers() {
			var paths []string
			for _, m := range c.VolumeMounts {
				used[m.Name] = true
				if !slices.Contains(there, m.Name) {
					wrong.add("%s: %s mounts %s, which is no volume", p.of, c.Name, m.Name)
				}
				if !path.IsAbs(m.MountPath) || slices.Contains(paths, m.MountPath) {
					wrong.add("%s: %s mounts two volumes at %s, or it is no absolute path", p.of, c.Name, m.MountPath)
				}
				paths = append(paths, m.MountPath)
			}
		}
		for _, name := range there {
			if !used[name] {
				wrong.add("%s: nobody mounts %s", p.of, name)
			}
		}
	}
	return wrong
}

// renewed: the kubelet renews no file that is mounted by its own path.
func renewed(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			for _, m := range c.VolumeMounts {
				i := slices.IndexFunc(p.spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
				if i < 0 || p.spec.Volumes[i].Secret == nil && p.spec.Volumes[i].ConfigMap == nil {
					continue
				}
				if m.SubPath != "" || m.SubPathExpr != "" || !m.ReadOnly {
					wrong.add("%s: %s mounts a part of %s, or may write to it", p.of, c.Name, m.Name)
				}
			}
		}
	}
	return wrong
}

// known are the variables of the daemon and of send, as their sources have them.
var known = func() map[string]bool {
	names := make(map[string]bool)
	for _, pattern := range []string{"../../config.go", "../../send/*.go", "../../send/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			panic("there is no " + pattern)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				panic(err)
			}
			for _, m := range regexp.MustCompile(`"((?:S3DAEMON|S3|AWS)_[A-Z0-9_]+)"`).FindAllStringSubmatch(string(text), -1) {
				names[m[1]] = true
			}
		}
	}
	return names
}()

// sdks are those of the AWS SDK that the chart sets.
var sdks = []string{"AWS_REGION", "AWS_CA_BUNDLE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}

func variables(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			seen := make(map[string]bool)
			for _, v := range c.Env {
				if seen[v.Name] {
					wrong.add("%s: %s has %s twice", p.of, c.Name, v.Name)
				}
				seen[v.Name] = true
				ours := regexp.MustCompile(`^(S3DAEMON|S3|AWS)_`).MatchString(v.Name)
				if ours && !known[v.Name] && !slices.Contains(sdks, v.Name) {
					wrong.add("%s: %s has %s, which nothing reads", p.of, c.Name, v.Name)
				}
				if v.Value == "" && v.ValueFrom == nil {
					wrong.add("%s: %s has %s, but no value", p.of, c.Name, v.Name)
				}
			}
		}
	}
	return wrong
}

// reachable: what a variable names is in a volume that this container has.
func reachable(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			for name, value := range env(c) {
				if !strings.HasSuffix(name, "_FILE") && !slices.Contains([]string{"AWS_CA_BUNDLE", "S3DAEMON_DATA_DIR", "S3DAEMON_ROOTS", "S3DAEMON_LISTEN", "S3DAEMON_URL"}, name) {
					continue
				}
				for value := range strings.SplitSeq(value, ",") {
					file := strings.TrimPrefix(value, "unix:")
					isMounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
						return file == m.MountPath || strings.HasPrefix(file, strings.TrimSuffix(m.MountPath, "/")+"/")
					})
					if path.IsAbs(file) && !isMounted {
						wrong.add("%s: %s has no volume for %s=%s", p.of, c.Name, name, value)
					}
				}
			}
		}
	}
	return wrong
}

// agreed: send asks where the daemon listens, and the daemon of a pod reads the
// files of the others where these have them, but cannot write there.
func agreed(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		i := slices.IndexFunc(p.containers(), func(c corev1.Container) bool { return c.Name == "s3daemon" })
		if i < 0 {
			continue
		}
		daemon := p.containers()[i]
		for _, c := range p.containers() {
			if url := env(c)["S3DAEMON_URL"]; url != "" && strings.TrimPrefix(url, "http://") != env(daemon)["S3DAEMON_LISTEN"] {
				wrong.add("%s: %s asks at %s, and the daemon listens on %s", p.of, c.Name, url, env(daemon)["S3DAEMON_LISTEN"])
			}
		}
		if listen := env(daemon)["S3DAEMON_LISTEN"]; !strings.HasPrefix(listen, "127.0.0.1:") && !strings.HasPrefix(listen, "unix:/") {
			wrong.add("%s: the daemon takes pushes at %s", p.of, listen)
		}
		for root := range strings.SplitSeq(env(daemon)["S3DAEMON_ROOTS"], ",") {
			for _, m := range daemon.VolumeMounts {
				if m.MountPath == root && !m.ReadOnly {
					wrong.add("%s: the daemon may write to %s", p.of, root)
				}
			}
		}
	}
	return wrong
}

// verbatim: the rules and the dashboard are wrapped, and nothing is done to them.
func verbatim(r rendered) (wrong complaints) {
	for _, o := range r.objects {
		switch o := o.Object.(type) {
		case *monitoringv1.PrometheusRule:
			var want monitoringv1.PrometheusRuleSpec
			if err := yaml.UnmarshalStrict(mustRead("../../helm/rules/s3daemon.rules.yaml"), &want); err != nil {
				wrong.add("%v", err)
			}
			if !reflect.DeepEqual(o.Spec, want) {
				wrong.add("PrometheusRule/%s has other rules than the file", o.Name)
			}
		case *corev1.ConfigMap:
			if got := slices.Collect(maps.Values(o.Data)); len(got) != 1 || got[0] != string(mustRead("../../helm/dashboards/s3daemon.json")) {
				wrong.add("ConfigMap/%s has not the dashboard of the file", o.Name)
			}
		}
	}
	return wrong
}

// env is the container's environment, without what comes from elsewhere.
func env(c corev1.Container) map[string]string {
	values := make(map[string]string)
	for _, v := range c.Env {
		values[v.Name] = v.Value
	}
	return values
}

// valueOf is what the pointer leads to, or this.
func valueOf[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// number is one of a values file, which helm has as either.
func number(value any) int64 {
	switch n := value.(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	case int:
		return int64(n)
	}
	panic(fmt.Sprintf("%v is no number", value))
}

func mustRead(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return text
}
