package chart

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chartutil"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
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
	{"a Job's barrier is that of its retries too", retried},
	{"probes", probes},
	{"resources", resources},
	{"what is mounted is there, and what is there is mounted", mounted},
	{"writers and daemons have the host's directories alike", shared},
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

// opens tells whether a container of the pod has a port of that name.
func (p pod) opens(name string) bool {
	return slices.ContainsFunc(p.containers(), func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(port corev1.ContainerPort) bool { return port.Name == name })
	})
}

// selectors are those of controllers, which must match their pods and no others
// of the release; of the PodMonitor and the NetworkPolicy, and the ports that they
// name; and of a StatefulSet's Service and account, which must exist where the
// release has to make them.
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
		switch o := o.Object.(type) {
		case *appsv1.StatefulSet:
			if !has("Service/" + o.Spec.ServiceName) {
				wrong.add("StatefulSet/%s has no Service %q", o.Name, o.Spec.ServiceName)
			}
		case *monitoringv1.PodMonitor:
			for _, p := range r.pods {
				isDaemon := slices.ContainsFunc(p.containers(), func(c corev1.Container) bool { return c.Name == "s3daemon" })
				found := labels.SelectorFromSet(o.Spec.Selector.MatchLabels).Matches(labels.Set(p.meta.Labels))
				if p.selector != nil && isDaemon && !(found && p.opens(*o.Spec.PodMetricsEndpoints[0].Port)) {
					wrong.add("PodMonitor/%s does not find the daemons of %s, or not their port", o.Name, p.of)
				}
			}
		case *networkingv1.NetworkPolicy:
			for _, p := range r.pods {
				found := labels.SelectorFromSet(o.Spec.PodSelector.MatchLabels).Matches(labels.Set(p.meta.Labels))
				if found != (p.of == "DaemonSet/"+o.Name) {
					wrong.add("NetworkPolicy/%s is for %s, or is not for the node's pods", o.Name, p.of)
				}
				for _, rule := range o.Spec.Ingress {
					if found && !p.opens(rule.Ports[0].Port.String()) {
						wrong.add("NetworkPolicy/%s lets peers in to %s, which is no port of %s", o.Name, rule.Ports[0].Port, p.of)
					}
				}
			}
			if isEgress := slices.Contains(o.Spec.PolicyTypes, networkingv1.PolicyTypeEgress); isEgress != (len(o.Spec.Egress) > 0) {
				wrong.add("NetworkPolicy/%s says whom its pods may reach, or that it does, alone", o.Name)
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
