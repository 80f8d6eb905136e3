// Applies a MutatingAdmissionPolicy to a Pod with the API server's own code, and prints the Pod that comes of it.
//
//	admission POLICY.yaml POD.yaml
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/google/cel-go/cel"
	"k8s.io/api/admissionregistration/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// variable makes what a policy calls a variable known to the compiler.
type variable v1beta1.Variable

func (v *variable) GetName() string          { return v.Name }
func (v *variable) GetExpression() string    { return v.Expression }
func (v *variable) ReturnTypes() []*cel.Type { return []*cel.Type{cel.AnyType, cel.DynType} }

// read parses the first document of a file, and accepts no field that it does not know.
func read(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	first, _, _ := bytes.Cut(text, []byte("\n---\n"))
	return yaml.UnmarshalStrict(first, into)
}

func apply(policy *v1beta1.MutatingAdmissionPolicy, pod *corev1.Pod) (runtime.Object, error) {
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		return nil, err
	}
	options := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	var variables []plugincel.NamedExpressionAccessor
	for _, each := range policy.Spec.Variables {
		variables = append(variables, (*variable)(&each))
	}
	compiler.CompileAndStoreVariables(variables, options, environment.StoredExpressions)
	options.HasPatchTypes = true

	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	kind := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	resource := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	var object runtime.Object = pod
	for _, mutation := range policy.Spec.Mutations {
		if mutation.JSONPatch == nil {
			return nil, errors.New("a mutation is no JSONPatch")
		}
		compiled := compiler.CompileMutatingEvaluator(
			&patch.JSONPatchCondition{Expression: mutation.JSONPatch.Expression}, options, environment.StoredExpressions)
		if wrong := compiled.CompilationErrors(); wrong != nil {
			return nil, fmt.Errorf("the expression does not compile: %v", wrong)
		}
		attributes := admission.NewAttributesRecord(object, nil, kind, pod.Namespace, pod.Name, resource, "",
			admission.Create, &metav1.CreateOptions{}, false, nil)
		request := patch.Request{
			MatchedResource:     resource,
			VersionedAttributes: &admission.VersionedAttributes{Attributes: attributes, VersionedKind: kind, VersionedObject: object},
			ObjectInterfaces:    admission.NewObjectInterfacesFromScheme(scheme),
		}
		ctx := compiler.CompositionEnv.CreateContext(context.Background())
		object, err = patch.NewJSONPatcher(compiled).Patch(ctx, request, celconfig.RuntimeCELCostBudget)
		if err != nil {
			return nil, err
		}
	}
	return object, nil
}

func run(arguments []string) error {
	if len(arguments) != 2 {
		return errors.New("usage: admission POLICY.yaml POD.yaml")
	}
	policy, pod := &v1beta1.MutatingAdmissionPolicy{}, &corev1.Pod{}
	if err := read(arguments[0], policy); err != nil {
		return err
	}
	if err := read(arguments[1], pod); err != nil {
		return err
	}
	object, err := apply(policy, pod)
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(object)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "admission:", err)
		os.Exit(1)
	}
}
