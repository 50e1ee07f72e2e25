// Replays scenarios through the horizontal pod autoscaler's own controller, on a clock that the Go runtime pretends. It is
// compiled as the only test of the controller's package, so that nothing of the controller is copied or changed.

package podautoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	autoscalingclient "k8s.io/client-go/kubernetes/typed/autoscaling/v2"
	corelisters "k8s.io/client-go/listers/core/v1"
	scaleclient "k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	metricsclient "k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/monitor"
	"k8s.io/kubernetes/pkg/controller/util/selectors"
)

const namespace, name = "tms", "lease"

// Moments are in milliseconds after the scenario's beginning.
type scenario struct {
	Spec        autoscaling.HorizontalPodAutoscalerSpec
	ScaleToZero bool
	Steps       []step
}

type step struct {
	At           int64
	Wanted       int32
	Existing     int32
	ScaledToZero bool
	Pods         []pod
	// By the name of the metric.
	Answers map[string]answer
}

type pod struct {
	Name       string
	Phase      v1.PodPhase
	Deleting   bool
	StartedAt  *int64
	Ready      v1.ConditionStatus
	ReadySince int64
	// In thousandths of CPUs; memory has the same number.
	Request *int64
}

type answer struct {
	Error   string
	Samples map[string]sample
	Values  []int64
}

type sample struct {
	Milli, At, Window int64
}

type decided struct {
	Replicas   int32             `json:"replicas"`
	Conditions []condition       `json:"conditions"`
	Metrics    []json.RawMessage `json:"metrics"`
	Error      string            `json:"error"`
}

type condition struct {
	Kind   string `json:"kind"`
	Status bool   `json:"status"`
	Reason string `json:"reason"`
}

func TestReplay(t *testing.T) {
	text, err := os.ReadFile(os.Getenv("REPLAY_SCENARIOS"))
	check(t, err)
	var scenarios []scenario
	check(t, json.Unmarshal(text, &scenarios))
	all := make([][]decided, len(scenarios))
	for i, scenario := range scenarios {
		gate := fmt.Sprintf("HPAScaleToZero=%t", scenario.ScaleToZero)
		check(t, utilfeature.DefaultMutableFeatureGate.Set(gate))
		synctest.Test(t, func(t *testing.T) { all[i] = replay(t, scenario) })
	}
	text, err = json.Marshal(all)
	check(t, err)
	check(t, os.WriteFile(os.Getenv("REPLAY_DECISIONS"), text, 0o644))
}

func replay(t *testing.T, scenario scenario) []decided {
	world := &world{beginning: time.Now()}
	pods := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	lister := corelisters.NewPodLister(pods)
	controller := &HorizontalController{
		eventRecorder:                &record.FakeRecorder{},
		scaleNamespacer:              world,
		hpaNamespacer:                autoscalers{world: world},
		mapper:                       mapper{},
		tolerance:                    0.1,
		downscaleStabilisationWindow: 5 * time.Minute,
		monitor:                      monitor.New(),
		podLister:                    lister,
		recommendations:              map[string][]timestampedRecommendation{},
		scaleUpEvents:                map[string][]timestampedScaleEvent{},
		scaleDownEvents:              map[string][]timestampedScaleEvent{},
		hpaSelectors:                 selectors.NewBiMultimap(),
		replicaCalc:                  NewReplicaCalculator(world, lister, 5*time.Minute, 30*time.Second),
	}
	var all []decided
	for _, step := range scenario.Steps {
		time.Sleep(time.Until(world.moment(step.At)))
		world.step = step
		var list []interface{}
		for _, pod := range step.Pods {
			list = append(list, world.pod(pod))
		}
		check(t, pods.Replace(list, ""))
		all = append(all, world.sync(controller, scenario.Spec))
	}
	return all
}

type world struct {
	beginning time.Time
	step      step
	status    *autoscaling.HorizontalPodAutoscalerStatus
}

func (w *world) sync(controller *HorizontalController, spec autoscaling.HorizontalPodAutoscalerSpec) decided {
	hpa := &autoscaling.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
	if w.step.ScaledToZero {
		setCondition(hpa, autoscaling.ScaledToZero, v1.ConditionTrue, "ScaledToZero", "")
	}
	w.status = &hpa.Status
	answer := decided{}
	if err := controller.reconcileAutoscaler(context.Background(), hpa, namespace+"/"+name); err != nil {
		answer.Error = err.Error()
	}
	answer.Replicas = w.step.Wanted
	for _, each := range w.status.Conditions {
		status := each.Status == v1.ConditionTrue
		answer.Conditions = append(answer.Conditions, condition{string(each.Type), status, each.Reason})
	}
	for _, metric := range w.status.CurrentMetrics {
		text, _ := json.Marshal(metric)
		answer.Metrics = append(answer.Metrics, text)
	}
	return answer
}

func (w *world) moment(milliseconds int64) time.Time {
	return w.beginning.Add(time.Duration(milliseconds) * time.Millisecond)
}

func (w *world) pod(given pod) *v1.Pod {
	labels := map[string]string{"lease": name}
	made := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: given.Name, Labels: labels}}
	made.Status.Phase = given.Phase
	if given.Deleting {
		now := metav1.Now()
		made.DeletionTimestamp = &now
	}
	if given.StartedAt != nil {
		made.Status.StartTime = &metav1.Time{Time: w.moment(*given.StartedAt)}
	}
	if given.Ready != "" {
		since := metav1.Time{Time: w.moment(given.ReadySince)}
		ready := v1.PodCondition{Type: v1.PodReady, Status: given.Ready, LastTransitionTime: since}
		made.Status.Conditions = []v1.PodCondition{ready}
	}
	container := v1.Container{Name: "triton"}
	if given.Request != nil {
		amount := *resource.NewMilliQuantity(*given.Request, resource.DecimalSI)
		container.Resources.Requests = v1.ResourceList{v1.ResourceCPU: amount, v1.ResourceMemory: amount}
	}
	made.Spec.Containers = []v1.Container{container}
	return made
}

// The metrics that the scenario gives. Like the clients of the metrics APIs, it answers nothing with an error.

func (w *world) samples(metric string) (metricsclient.PodMetricsInfo, time.Time, error) {
	answer := w.step.Answers[metric]
	if answer.Error != "" {
		return nil, time.Time{}, errors.New(answer.Error)
	}
	if len(answer.Samples) == 0 {
		return nil, time.Time{}, errors.New("no metrics returned")
	}
	all := metricsclient.PodMetricsInfo{}
	for pod, sample := range answer.Samples {
		window := time.Duration(sample.Window) * time.Millisecond
		all[pod] = metricsclient.PodMetric{Timestamp: w.moment(sample.At), Window: window, Value: sample.Milli}
	}
	return all, time.Now(), nil
}

func (w *world) GetResourceMetric(_ context.Context, resource v1.ResourceName, _ string, _ labels.Selector, _ string) (metricsclient.PodMetricsInfo, time.Time, error) {
	return w.samples(string(resource))
}

func (w *world) GetRawMetric(metric string, _ string, _ labels.Selector, _ labels.Selector) (metricsclient.PodMetricsInfo, time.Time, error) {
	return w.samples(metric)
}

func (w *world) GetObjectMetric(string, string, *autoscaling.CrossVersionObjectReference, labels.Selector) (int64, time.Time, error) {
	return 0, time.Time{}, errors.New("no scenario has a metric of an object")
}

func (w *world) GetExternalMetric(metric string, _ string, _ labels.Selector) ([]int64, time.Time, error) {
	answer := w.step.Answers[metric]
	if answer.Error != "" {
		return nil, time.Time{}, errors.New(answer.Error)
	}
	if len(answer.Values) == 0 {
		return nil, time.Time{}, errors.New("no metrics returned")
	}
	return answer.Values, time.Now(), nil
}

// The target: it is read and written as the scale subresource of a Deployment.

func (w *world) Scales(string) scaleclient.ScaleInterface { return scales{world: w} }

type scales struct {
	scaleclient.ScaleInterface
	world *world
}

func (s scales) Get(context.Context, schema.GroupResource, string, metav1.GetOptions) (*autoscalingv1.Scale, error) {
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       autoscalingv1.ScaleSpec{Replicas: s.world.step.Wanted},
		Status:     autoscalingv1.ScaleStatus{Replicas: s.world.step.Existing, Selector: "lease=" + name},
	}, nil
}

func (s scales) Update(_ context.Context, _ schema.GroupResource, scale *autoscalingv1.Scale, _ metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	s.world.step.Wanted = scale.Spec.Replicas
	return scale, nil
}

type autoscalers struct {
	autoscalingclient.HorizontalPodAutoscalerInterface
	world *world
}

func (a autoscalers) HorizontalPodAutoscalers(string) autoscalingclient.HorizontalPodAutoscalerInterface {
	return a
}

func (a autoscalers) UpdateStatus(_ context.Context, hpa *autoscaling.HorizontalPodAutoscaler, _ metav1.UpdateOptions) (*autoscaling.HorizontalPodAutoscaler, error) {
	a.world.status = &hpa.Status
	return hpa, nil
}

type mapper struct{ apimeta.RESTMapper }

func (mapper) RESTMappings(schema.GroupKind, ...string) ([]*apimeta.RESTMapping, error) {
	deployments := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	return []*apimeta.RESTMapping{{Resource: deployments}}, nil
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
