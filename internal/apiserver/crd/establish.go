// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"context"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	kinds "kaji/internal/api/apiextensions"
)

// installTime is how long a definition stays Installing, from when its names
// were found free. Other API servers of the same store learn of the kind meanwhile,
// and a client that reads a definition right behind its creation finds it not
// established yet, as it does everywhere else.
const installTime = 25 * time.Millisecond

// reasonInstalling is why a definition with accepted names is not established.
const reasonInstalling = "Installing"

// isInstalling says that a definition waits for no more than installTime.
func isInstalling(crd *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionFalse && c.Reason == reasonInstalling
	})
}

// installing are the definitions that wait to be established, the one that
// came first at the front.
type installing []struct {
	name string
	due  time.Time
}

// add lets a definition wait; one that waits already goes on.
func (i *installing) add(name string) {
	for _, w := range *i {
		if w.name == name {
			return
		}
	}
	*i = append(*i, struct {
		name string
		due  time.Time
	}{name, time.Now().Add(installTime)})
}

// next returns how long the first one still waits; some is false for none.
func (i installing) next() (wait time.Duration, some bool) {
	if len(i) == 0 {
		return 0, false
	}
	return max(time.Until(i[0].due), 0), true
}

// take removes the first one if it waited long enough.
func (i *installing) take() (name string, ok bool) {
	if wait, some := i.next(); !some || wait > 0 {
		return "", false
	}
	name = (*i)[0].name
	*i = (*i)[1:]
	return name, true
}

// establish serves the definitions that waited long enough and says so in
// their status.
func (c *Controller) establish(ctx context.Context, at *newest) {
	var states []state
	for {
		name, some := c.installing.take()
		if !some {
			c.write(ctx, states)
			return
		}
		e, found := at.Get(c.cfg.Kind.Key("", name))
		if !found {
			continue
		}
		crd := at.definition(e)
		if crd.DeletionTimestamp != nil || !isInstalling(crd) || !kinds.IsTrue(crd, apiextensionsv1.NamesAccepted) {
			continue
		}
		established := withOwnStatus(crd)
		kinds.SetCondition(established, apiextensionsv1.CustomResourceDefinitionCondition{
			Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue,
			Reason: "InitialNamesAccepted", Message: "the initial names have been accepted",
		})
		// Whoever reads that the kind is established finds it served. The write
		// comes back as an event, and whatever it did not change with it.
		s := state{e, established}
		if crd == definitionOf(e) {
			c.serve(e, established)
			states = append(states, s)
		} else if !c.writes.replace(s, func() { c.serve(e, established) }) {
			c.installing.add(name) // once it is stored that it is installing
		}
	}
}
