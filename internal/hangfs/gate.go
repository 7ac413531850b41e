//go:build linux

package main

import "sync"

// rule says what becomes of some requests.
type rule struct {
	operation, name string // "*": any
	fails           bool   // else they hang
}

func (r rule) matches(operation, name string) bool {
	return (r.operation == "*" || r.operation == operation) && (r.name == "*" || r.name == name)
}

// gate holds requests up.
type gate struct {
	mu    sync.Mutex // guards all below
	moved sync.Cond  // held or rules have changed
	rules []rule
	held  int
	round int // counts the calls of wake
}

func newGate() *gate {
	g := new(gate)
	g.moved.L = &g.mu
	return g
}

func (g *gate) add(r rule) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rules = append(g.rules, r)
}

// pass returns when the request may be answered, and whether it fails.
func (g *gate) pass(operation, name string) (fails bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.rules {
		switch {
		case !r.matches(operation, name):
		case r.fails:
			return true
		default:
			g.held++
			g.moved.Broadcast()
			for round := g.round; g.round == round; {
				g.moved.Wait()
			}
			g.held--
			return false
		}
	}
	return false
}

// await returns once n requests are held.
func (g *gate) await(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.held < n {
		g.moved.Wait()
	}
}

// count returns how many requests are held.
func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

func (g *gate) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rules = nil
	g.round++
	g.moved.Broadcast()
}
