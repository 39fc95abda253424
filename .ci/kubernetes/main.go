// Command kubernetes checks the output of igcsearch submit kubernetes, which it
// reads from standard input: every document must decode into the API's own
// type with no field left over, and the whole must keep the rules that the
// types do not say and an API server or the job would fail on. It prints a line
// for each document; the first broken rule is the error.
//
// It is a module of its own: the API's types are no dependency of igcsearch.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kubejson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := check(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes:", err)
		os.Exit(1)
	}
}

// manifest is what one stream holds.
type manifest struct {
	deployments []*appsv1.Deployment
	jobs        []*batchv1.Job
	services    []*corev1.Service
	secrets     []*corev1.Secret
	named       map[string]bool // "Kind name"
	namespace   string
}

func check(in io.Reader, out io.Writer) error {
	m := manifest{named: map[string]bool{}}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(in))
	for n := 1; ; n++ {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		object, err := m.add(text)
		if err != nil {
			return fmt.Errorf("document %d: %w", n, err)
		}
		fmt.Fprintln(out, object)
	}
	if len(m.jobs) != 1 || len(m.deployments) != 1 || len(m.services) != 1 || len(m.secrets) != 1 {
		return fmt.Errorf("%d Jobs, %d Deployments, %d Services, %d Secrets: want one of each", len(m.jobs),
			len(m.deployments), len(m.services), len(m.secrets))
	}
	job, deployment := m.jobs[0], m.deployments[0]
	for _, err := range []error{
		m.job(job), m.deployment(deployment),
		m.service(m.services[0], deployment.Spec.Template), m.access(m.secrets[0]),
		m.pod(job.Spec.Template), m.pod(deployment.Spec.Template),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// add decodes one document and returns what it is, "Kind name".
func (m *manifest) add(text []byte) (string, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(text, &kind); err != nil {
		return "", err
	}
	var object metav1.Object
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 Secret":
		secret := &corev1.Secret{}
		object, m.secrets = secret, append(m.secrets, secret)
	case "v1 Service":
		service := &corev1.Service{}
		object, m.services = service, append(m.services, service)
	case "v1 ConfigMap":
		object = &corev1.ConfigMap{}
	case "v1 PersistentVolumeClaim":
		object = &corev1.PersistentVolumeClaim{}
	case "apps/v1 Deployment":
		deployment := &appsv1.Deployment{}
		object, m.deployments = deployment, append(m.deployments, deployment)
	case "batch/v1 Job":
		job := &batchv1.Job{}
		object, m.jobs = job, append(m.jobs, job)
	default:
		return "", fmt.Errorf("unknown kind %q of %q", kind.Kind, kind.APIVersion)
	}
	// Not yaml.UnmarshalStrict, which takes fields in any case: an API server
	// does not.
	plain, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return "", err
	}
	strict, err := kubejson.UnmarshalStrict(plain, object)
	if err = errors.Join(append(strict, err)...); err != nil {
		return "", fmt.Errorf("%s: %w", kind.Kind, err)
	}
	what := kind.Kind + " " + object.GetName()
	if m.named[what] {
		return "", fmt.Errorf("%s is there twice", what)
	}
	if len(m.named) > 0 && object.GetNamespace() != m.namespace {
		return "", fmt.Errorf("%s is in namespace %q, what came before in %q", what, object.GetNamespace(), m.namespace)
	}
	m.named[what], m.namespace = true, object.GetNamespace()
	problems := validation.IsDNS1035Label(object.GetName()) // as a Service must be named, others may be
	problems = append(problems, labelProblems(object.GetLabels())...)
	if m.namespace != "" {
		problems = append(problems, validation.IsDNS1123Label(m.namespace)...)
	}
	if len(problems) > 0 {
		return "", fmt.Errorf("%s: %s", what, problems[0])
	}
	return what, nil
}

func labelProblems(of map[string]string) (problems []string) {
	for key, value := range of {
		problems = append(problems, validation.IsQualifiedName(key)...)
		problems = append(problems, validation.IsValidLabelValue(value)...)
	}
	return problems
}

// job checks what an API server does: kubernetes/pkg/apis/batch/validation.
func (m *manifest) job(j *batchv1.Job) error {
	s, fail := j.Spec, func(format string, a ...any) error {
		return fmt.Errorf("Job "+j.Name+": "+format, a...)
	}
	indexed := s.CompletionMode != nil && *s.CompletionMode == batchv1.IndexedCompletion
	never := s.Template.Spec.RestartPolicy == corev1.RestartPolicyNever
	switch {
	case !indexed:
		return fail("completionMode is not Indexed")
	case s.Completions == nil || s.Parallelism == nil || *s.Completions != *s.Parallelism || *s.Completions < 1 ||
		*s.Completions > 100_000:
		return fail("completions and parallelism: want the same, 1 to 100000")
	case s.BackoffLimitPerIndex == nil || *s.BackoffLimitPerIndex < 0 || !never:
		return fail("backoffLimitPerIndex: want it, with restartPolicy Never")
	case s.MaxFailedIndexes == nil || *s.MaxFailedIndexes < 0 || *s.MaxFailedIndexes > *s.Completions:
		return fail("maxFailedIndexes: want 0 to completions")
	case s.PodFailurePolicy == nil || !never:
		return fail("podFailurePolicy: want it, with restartPolicy Never")
	case s.Selector != nil || s.ManualSelector != nil:
		return fail("selector: it is made by the API server")
	}
	ignored := false
	for i, rule := range s.PodFailurePolicy.Rules {
		if (rule.OnExitCodes == nil) == (len(rule.OnPodConditions) == 0) {
			return fail("podFailurePolicy rule %d: want either onExitCodes or onPodConditions", i)
		}
		switch rule.Action {
		case batchv1.PodFailurePolicyActionIgnore, batchv1.PodFailurePolicyActionCount,
			batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionFailIndex:
		default:
			return fail("podFailurePolicy rule %d: unknown action %q", i, rule.Action)
		}
		for _, c := range rule.OnPodConditions {
			if c.Status != corev1.ConditionTrue {
				return fail("podFailurePolicy rule %d: %s: status %q, want True", i, c.Type, c.Status)
			}
			ignored = ignored || rule.Action == batchv1.PodFailurePolicyActionIgnore &&
				c.Type == corev1.DisruptionTarget
		}
		if on := rule.OnExitCodes; on != nil {
			known := on.ContainerName == nil
			for _, c := range s.Template.Spec.Containers {
				known = known || c.Name == *on.ContainerName
			}
			if !known {
				return fail("podFailurePolicy rule %d: no container %s", i, *on.ContainerName)
			}
			if on.Operator != batchv1.PodFailurePolicyOnExitCodesOpIn &&
				on.Operator != batchv1.PodFailurePolicyOnExitCodesOpNotIn {
				return fail("podFailurePolicy rule %d: unknown operator %q", i, on.Operator)
			}
			for _, code := range on.Values {
				if code == 0 && on.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn {
					return fail("podFailurePolicy rule %d: exit code 0 is no failure", i)
				}
			}
		}
	}
	if !ignored {
		return fail("podFailurePolicy does not ignore DisruptionTarget")
	}
	if queue := j.Labels["kueue.x-k8s.io/queue-name"]; queue != "" && (s.Suspend == nil || !*s.Suspend) {
		return fail("waits in queue %s, and is not suspended", queue)
	}
	// The host name of a pod is the Job's name and an index.
	if problems := validation.IsDNS1123Label(j.Name + "-" + strconv.Itoa(int(*s.Completions)-1)); len(problems) > 0 {
		return fail("%s", problems[0])
	}
	return nil
}

func (m *manifest) deployment(d *appsv1.Deployment) error {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	switch {
	case err != nil:
		return err
	case selector.Empty() || !selector.Matches(labels.Set(d.Spec.Template.Labels)):
		return fmt.Errorf("Deployment %s: its selector does not match its pods", d.Name)
	case selector.Matches(labels.Set(m.jobs[0].Spec.Template.Labels)):
		return fmt.Errorf("Deployment %s: its selector matches the workers", d.Name)
	case d.Spec.Replicas == nil || *d.Spec.Replicas != 1 ||
		d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType || d.Spec.Strategy.RollingUpdate != nil:
		return fmt.Errorf("Deployment %s: want one replica and strategy Recreate: the database is of one process",
			d.Name)
	case d.Spec.Template.Spec.RestartPolicy != "" && d.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyAlways:
		return fmt.Errorf("Deployment %s: restartPolicy %s", d.Name, d.Spec.Template.Spec.RestartPolicy)
	}
	return nil
}

func (m *manifest) service(s *corev1.Service, pods corev1.PodTemplateSpec) error {
	selector := labels.SelectorFromSet(s.Spec.Selector)
	switch {
	case selector.Empty() || !selector.Matches(labels.Set(pods.Labels)):
		return fmt.Errorf("Service %s: its selector does not match the coordinator", s.Name)
	case selector.Matches(labels.Set(m.jobs[0].Spec.Template.Labels)):
		return fmt.Errorf("Service %s: its selector matches the workers", s.Name)
	case len(s.Spec.Ports) == 0:
		return fmt.Errorf("Service %s: no port", s.Name)
	}
	for _, p := range s.Spec.Ports {
		if !hasPort(pods.Spec.Containers[0], p.TargetPort) {
			return fmt.Errorf("Service %s: the coordinator has no port %s", s.Name, p.TargetPort.String())
		}
	}
	return nil
}

func hasPort(c corev1.Container, port intstr.IntOrString) bool {
	for _, p := range c.Ports {
		if p.Name == port.StrVal || p.ContainerPort == port.IntVal {
			return true
		}
	}
	return false
}

// access checks that the access file leads to the Service.
func (m *manifest) access(s *corev1.Secret) error {
	var file struct{ Address, Token string }
	if err := json.Unmarshal([]byte(s.StringData["access.json"]), &file); err != nil {
		return fmt.Errorf("Secret %s: access.json: %w", s.Name, err)
	}
	address, err := url.Parse(file.Address)
	if err != nil {
		return fmt.Errorf("Secret %s: access.json: %w", s.Name, err)
	}
	service := m.services[0]
	if address.Hostname() != service.Name || address.Port() != strconv.Itoa(int(service.Spec.Ports[0].Port)) {
		return fmt.Errorf("Secret %s: address %s is not that of Service %s", s.Name, file.Address, service.Name)
	}
	if len(file.Token) < 32 {
		return fmt.Errorf("Secret %s: a token of %d letters", s.Name, len(file.Token))
	}
	return nil
}

// pod checks one template: what its containers name must be there.
func (m *manifest) pod(t corev1.PodTemplateSpec) error {
	if problems := labelProblems(t.Labels); len(problems) > 0 {
		return errors.New(problems[0])
	}
	volumes := map[string]bool{}
	for _, v := range t.Spec.Volumes {
		if volumes[v.Name] || len(validation.IsDNS1123Label(v.Name)) > 0 {
			return fmt.Errorf("volume %s: twice, or no name", v.Name)
		}
		volumes[v.Name] = true
		switch {
		case v.Secret != nil && !m.named["Secret "+v.Secret.SecretName]:
			return fmt.Errorf("volume %s: no Secret %s", v.Name, v.Secret.SecretName)
		case v.Secret != nil && (v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440):
			return fmt.Errorf("volume %s: want mode 0440", v.Name)
		case v.ConfigMap != nil && !m.named["ConfigMap "+v.ConfigMap.Name]:
			return fmt.Errorf("volume %s: no ConfigMap %s", v.Name, v.ConfigMap.Name)
		case v.PersistentVolumeClaim != nil && !v.PersistentVolumeClaim.ReadOnly &&
			!m.named["PersistentVolumeClaim "+v.PersistentVolumeClaim.ClaimName]:
			return fmt.Errorf("volume %s: no PersistentVolumeClaim %s, and it is not read only", v.Name,
				v.PersistentVolumeClaim.ClaimName)
		case v.Secret == nil && v.ConfigMap == nil && v.PersistentVolumeClaim == nil && v.EmptyDir == nil:
			return fmt.Errorf("volume %s: of nothing", v.Name)
		}
	}
	user := t.Spec.SecurityContext
	if user == nil || user.RunAsNonRoot == nil || !*user.RunAsNonRoot || user.RunAsUser == nil || *user.RunAsUser == 0 {
		return errors.New("a pod may run as root")
	}
	if len(t.Spec.Containers) != 1 {
		return fmt.Errorf("%d containers, want 1", len(t.Spec.Containers))
	}
	c := t.Spec.Containers[0]
	fail := func(format string, a ...any) error { return fmt.Errorf("container "+c.Name+": "+format, a...) }
	if c.Image == "" || len(c.Args) == 0 || len(c.Command) > 0 {
		return fail("want an image and args for its entry point")
	}
	paths := map[string]bool{}
	for _, mount := range c.VolumeMounts {
		if !volumes[mount.Name] || paths[mount.MountPath] {
			return fail("mount %s: no such volume, or another one at %s", mount.Name, mount.MountPath)
		}
		paths[mount.MountPath] = true
		delete(volumes, mount.Name)
	}
	for name := range volumes {
		return fail("volume %s is not mounted", name)
	}
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		if probe != nil && (probe.HTTPGet == nil || !hasPort(c, probe.HTTPGet.Port)) {
			return fail("a probe of a port that it does not have")
		}
	}
	for name, limit := range c.Resources.Limits {
		request, given := c.Resources.Requests[name]
		if limit.Sign() <= 0 || given && request.Cmp(limit) > 0 {
			return fail("%s: a request of %s over the limit of %s", name, request.String(), limit.String())
		}
	}
	s := c.SecurityContext
	if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil ||
		*s.AllowPrivilegeEscalation {
		return fail("want a read-only root and no escalation")
	}
	return nil
}
