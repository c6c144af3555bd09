// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"fmt"
	"log/slog"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/plugin/balancedallocation"
	"kaji/internal/scheduler/plugin/defaultbinder"
	"kaji/internal/scheduler/plugin/defaultpreemption"
	"kaji/internal/scheduler/plugin/dynamicresources"
	"kaji/internal/scheduler/plugin/gangscheduling"
	"kaji/internal/scheduler/plugin/imagelocality"
	"kaji/internal/scheduler/plugin/interpodaffinity"
	"kaji/internal/scheduler/plugin/nodeaffinity"
	"kaji/internal/scheduler/plugin/nodedeclaredfeatures"
	"kaji/internal/scheduler/plugin/nodename"
	"kaji/internal/scheduler/plugin/nodeports"
	"kaji/internal/scheduler/plugin/noderesourcesfit"
	"kaji/internal/scheduler/plugin/nodeunschedulable"
	"kaji/internal/scheduler/plugin/nodevolumelimits"
	"kaji/internal/scheduler/plugin/podtopologyspread"
	"kaji/internal/scheduler/plugin/prioritysort"
	"kaji/internal/scheduler/plugin/schedulinggates"
	"kaji/internal/scheduler/plugin/tainttoleration"
	"kaji/internal/scheduler/plugin/volumebinding"
	"kaji/internal/scheduler/plugin/volumerestrictions"
	"kaji/internal/scheduler/plugin/volumezone"
	"kaji/internal/scheduler/podgroup"
	"kaji/internal/scheduler/snapshot"
)

// dependencies are what plugins are made from.
type dependencies struct {
	client  client.Interface
	snap    *snapshot.Snapshot
	log     *slog.Logger
	ignored sets.Set[string] // resources that only extenders look at
	devices *dynamicresources.Promises
	volumes *volumebinding.Promises
	groups  *podgroup.Groups // nil when there are none
}

type constructor func(d *dependencies, h plugin.Handle, args runtime.Object) (plugin.Plugin, error)

// registry lists every plugin there is.
var registry = map[string]constructor{
	nodename.Name:          simple(func(*dependencies) plugin.Plugin { return nodename.New() }),
	nodeunschedulable.Name: simple(func(*dependencies) plugin.Plugin { return nodeunschedulable.New() }),
	nodeports.Name:         simple(func(*dependencies) plugin.Plugin { return nodeports.New() }),
	tainttoleration.Name:   simple(func(*dependencies) plugin.Plugin { return tainttoleration.New() }),
	schedulinggates.Name:   simple(func(*dependencies) plugin.Plugin { return schedulinggates.New() }),
	gangscheduling.Name: func(d *dependencies, h plugin.Handle, _ runtime.Object) (plugin.Plugin, error) {
		return gangscheduling.New(h, d.groups), nil
	},
	prioritysort.Name:  simple(func(*dependencies) plugin.Plugin { return prioritysort.New() }),
	defaultbinder.Name: simple(func(d *dependencies) plugin.Plugin { return defaultbinder.New(d.client) }),
	imagelocality.Name: simple(func(d *dependencies) plugin.Plugin { return imagelocality.New(d.snap) }),
	interpodaffinity.Name: with(func(d *dependencies, _ plugin.Handle, a *configv1.InterPodAffinityArgs) (plugin.Plugin, error) {
		return interpodaffinity.New(d.snap, a), nil
	}),
	podtopologyspread.Name: with(func(d *dependencies, _ plugin.Handle, a *configv1.PodTopologySpreadArgs) (plugin.Plugin, error) {
		return podtopologyspread.New(d.client, d.snap, a), nil
	}),
	defaultpreemption.Name: with(func(d *dependencies, h plugin.Handle, a *configv1.DefaultPreemptionArgs) (plugin.Plugin, error) {
		return defaultpreemption.New(h, d.groups, a), nil
	}),
	nodeaffinity.Name: with(func(_ *dependencies, _ plugin.Handle, a *configv1.NodeAffinityArgs) (plugin.Plugin, error) {
		return nodeaffinity.New(a)
	}),
	volumerestrictions.Name: simple(func(d *dependencies) plugin.Plugin { return volumerestrictions.New(d.client) }),
	nodevolumelimits.Name:   simple(func(d *dependencies) plugin.Plugin { return nodevolumelimits.New(d.client) }),
	volumezone.Name:         simple(func(d *dependencies) plugin.Plugin { return volumezone.New(d.client) }),
	volumebinding.Name: with(func(d *dependencies, _ plugin.Handle, a *configv1.VolumeBindingArgs) (plugin.Plugin, error) {
		return volumebinding.New(d.client, a, d.volumes), nil
	}),
	dynamicresources.Name: with(func(d *dependencies, h plugin.Handle, a *configv1.DynamicResourcesArgs) (plugin.Plugin, error) {
		return dynamicresources.New(h, d.devices, a), nil
	}),
	nodedeclaredfeatures.Name: func(*dependencies, plugin.Handle, runtime.Object) (plugin.Plugin, error) {
		return nodedeclaredfeatures.New()
	},
	noderesourcesfit.Name: with(func(d *dependencies, _ plugin.Handle, a *configv1.NodeResourcesFitArgs) (plugin.Plugin, error) {
		return noderesourcesfit.New(d.client, d.snap, a, d.ignored), nil
	}),
	balancedallocation.Name: with(func(d *dependencies, _ plugin.Handle, a *configv1.NodeResourcesBalancedAllocationArgs) (plugin.Plugin, error) {
		return balancedallocation.New(d.snap, a), nil
	}),
}

// simple is a plugin without arguments.
func simple(f func(*dependencies) plugin.Plugin) constructor {
	return func(d *dependencies, _ plugin.Handle, _ runtime.Object) (plugin.Plugin, error) { return f(d), nil }
}

// with is a plugin whose arguments are of type T.
func with[T runtime.Object](f func(d *dependencies, h plugin.Handle, args T) (plugin.Plugin, error)) constructor {
	return func(d *dependencies, h plugin.Handle, args runtime.Object) (plugin.Plugin, error) {
		typed, ok := args.(T)
		if !ok {
			return nil, fmt.Errorf("got args of type %T, want %T", args, typed)
		}
		return f(d, h, typed)
	}
}
