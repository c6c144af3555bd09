// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"strings"
	"testing"

	"kaji/internal/api/catalog"
	"kaji/internal/api/kindtest"
)

// What the reference implementation says about wrong objects, where it was
// easily said otherwise. An update changes old.
func TestWording(t *testing.T) {
	const (
		label     = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
		pod       = "metadata: {name: p}\nspec: {serviceAccountName: d, %containers: [{name: c, image: i}]}"
		attach    = "metadata: {name: a}\nspec: {attacher: %, nodeName: n, source: {persistentVolumeName: v}}"
		slice     = "metadata: {name: s}\nspec: {driver: d.example.com, nodeName: n, pool: {name: %, generation: 1, resourceSliceCount: 1}, devices: [{name: a}]}"
		class     = "metadata: {name: r}\nhandler: %"
		node      = "metadata: {name: n%}\nspec: {providerID: SPEC}"
		policy    = "metadata: {name: n}\nspec: {podSelector: {}, ingress: [{ports: [{port: 9, endPort: 8}]}]}"
		level     = "metadata: {name: l}\nspec: {type: X, limited: {limitResponse: {type: Y, queuing: {}}}}"
		immutable = ": field is immutable"
	)
	long := strings.Repeat("a", 64)
	in := func(template string, values ...string) string {
		for _, v := range values {
			template = strings.Replace(template, "%", v, 1)
		}
		return template
	}
	for _, c := range []struct {
		kind, old, obj string
		want           []string
	}{
		{"Pod", "", in(pod, "os: {}, "), []string{"spec.os.name: Required value"}},
		{"NetworkPolicy", "", policy, []string{"spec.ingress[0].ports[0].endPort: Invalid value: 8: must be greater than or equal to `port`"}},
		{"PriorityLevelConfiguration", "", level, []string{"spec.limited: Forbidden", "spec.limited.limitResponse.queuing: Forbidden",
			`spec.type: Unsupported value: "X": supported values: "Exempt", "Limited"`}},
		{"VolumeAttachment", "", in(attach, long), []string{"spec.attacher: Too long: may not be more than 63 characters"}},
		{"VolumeAttachment", in(attach, "a.example.com"), in(attach, "-"), []string{`spec.attacher: Invalid value: "-": ` + label,
			"spec: Invalid value: null" + immutable}},
		{"ResourceSlice", "", in(slice, "-/b"), []string{`spec.pool.name: Invalid value: "-": ` + label}},
		{"RuntimeClass", in(class, "a"), in(class, long), []string{`handler: Invalid value: "` + long + `": must be no more than 63 characters`,
			"handler: Invalid value: null" + immutable}},
		{"Node", in(node, "") + "", "metadata: {name: n}", []string{"spec.providerID: Invalid value: null: field cannot be cleared once set"}},
		{"Node", "", in(node, ", annotations: {scheduler.alpha.kubernetes.io/preferAvoidPods: x}"), []string{
			`metadata.annotations.AvoidPods: Invalid value: "scheduler.alpha.kubernetes.io/preferAvoidPods": invalid character 'x' looking for beginning of value`}},
		{"CronJob", "", "metadata: {name: c}\nspec: {schedule: '* * * * *', timeZone: /a/../b, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}",
			[]string{`spec.timeZone: Invalid value: "/a/../b": unknown time zone /a/../b`}},
		{"Job", "", "metadata: {name: j, uid: u}\nspec: {completionMode: '', backoffLimitPerIndex: 1, template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}",
			[]string{`spec.completionMode: Unsupported value: "": supported values: "NonIndexed", "Indexed"`}},
	} {
		k := kindtest.Find(t, catalog.Current(), c.kind)
		var errs []string
		if c.old == "" {
			_, errs = kindtest.Create(t, k, c.obj)
		} else {
			old, first := kindtest.Create(t, k, c.old)
			kindtest.Expect(t, first)
			_, errs = kindtest.Update(t, k, old, c.obj)
		}
		t.Run(c.kind, func(t *testing.T) { kindtest.Expect(t, errs, c.want...) })
	}
}
