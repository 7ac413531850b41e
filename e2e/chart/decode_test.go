package chart

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

// object is one of what helm would give to the API server.
type object struct {
	name string // kind/name, for messages
	meta metav1.Object
	runtime.Object
}

// strict decodes what Kubernetes and the Prometheus operator know, and takes no
// field that they do not, nor one twice.
var strict = func() runtime.Decoder {
	if err := monitoringv1.AddToScheme(scheme.Scheme); err != nil {
		panic(err)
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
}()

// decode makes objects of rendered files.
func decode(files map[string]string) (objects []object, err error) {
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(file, ".txt") {
			continue
		}
		for reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(files[file]))); ; {
			document, err := reader.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			if isEmpty(string(document)) {
				continue
			}
			decoded, _, err := strict.Decode(document, nil, nil)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			meta := decoded.(metav1.Object)
			name := decoded.GetObjectKind().GroupVersionKind().Kind + "/" + meta.GetName()
			objects = append(objects, object{name, meta, decoded})
		}
	}
	return objects, nil
}

// isEmpty tells of a document of YAML that there is nothing in it but comments.
func isEmpty(document string) bool {
	for line := range strings.Lines(document) {
		if line = strings.TrimSpace(line); line != "" && line != "---" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

// pod is a pod, or what an object makes pods of.
type pod struct {
	of       string // the object's name
	meta     metav1.ObjectMeta
	spec     corev1.PodSpec
	selector map[string]string // by which the object finds them
	claims   []string          // volumes that a StatefulSet adds
}

// containers are all of them, in the order of their start.
func (p pod) containers() []corev1.Container {
	return slices.Concat(p.spec.InitContainers, p.spec.Containers)
}

// podsOf finds the pods among objects.
func podsOf(objects []object) (pods []pod) {
	for _, o := range objects {
		var p pod
		var template corev1.PodTemplateSpec
		var selector *metav1.LabelSelector
		switch o := o.Object.(type) {
		case *corev1.Pod:
			template = corev1.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}
		case *appsv1.Deployment:
			template, selector = o.Spec.Template, o.Spec.Selector
		case *appsv1.DaemonSet:
			template, selector = o.Spec.Template, o.Spec.Selector
		case *appsv1.StatefulSet:
			template, selector = o.Spec.Template, o.Spec.Selector
			for _, claim := range o.Spec.VolumeClaimTemplates {
				p.claims = append(p.claims, claim.Name)
			}
		case *batchv1.Job:
			template = o.Spec.Template
		default:
			continue
		}
		p.of, p.meta, p.spec = o.name, template.ObjectMeta, template.Spec
		if selector != nil {
			p.selector = selector.MatchLabels
		}
		pods = append(pods, p)
	}
	return pods
}
