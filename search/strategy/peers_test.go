package strategy_test

import (
	"slices"
	"strings"
	"testing"

	"igcsearch/search"
	"igcsearch/search/strategy"
)

// TestPeers replays rules of public tools on accuracies whose course can be worked out by hand.
func TestPeers(t *testing.T) {
	t.Parallel()
	// turns are the accuracies of two networks of which now one is better and now the other, by
	// equal steps.
	turns := func(network, seed int) float64 { return 0.5 + 0.01*float64((network+seed)%2) }
	for _, c := range []struct {
		name, peer      string
		networks, seeds int
		at              func(network, seed int) float64
		begun           []int // the number of trials of each network
		best            int
	}{
		{
			// Network 1 is worse at every seed, and p is 1/2, 1/4, 1/8 and 1/16.
			"a worse network is pruned after four seeds", strategy.PeerWilcoxon, 3, 6,
			func(network, seed int) float64 { return []float64{0.5, 0.4, 0.6}[network] + 0.01*float64(network*seed) },
			[]int{6, 4, 6}, 2,
		}, {
			// After eight seeds the rank of the positive difference is 8, and 25 of 256 signs give as
			// small a sum, so p is below 0.1. But the mean is higher.
			"a network of a higher mean is not pruned", strategy.PeerWilcoxon, 2, 9,
			func(network, seed int) float64 {
				if seed == 0 {
					return 0.4 + 0.5*float64(network)
				}
				return 0.4 - 0.01*float64(network*seed)
			},
			[]int{9, 9}, 1,
		}, {
			// The incumbent has 2 seeds before network 1 begins, 3 before network 2, which wins on
			// these, and 4 before network 3.
			"challengers lose with one seed, or win on all of the incumbent's", strategy.PeerSMAC, 4, 5,
			func(network, seed int) float64 { return []float64{0.5, 0.4, 0.6, 0.55}[network] },
			[]int{3, 1, 4, 1}, 2,
		}, {
			// The rank sums are 5, 10 and 15. Friedman's statistic is 12·50/(5·3·4) = 10, and
			// p = exp(−10/2). Without any contradiction, all differences of rank sums count.
			"one order at every seed leaves one after five", strategy.PeerIrace, 3, 7,
			func(network, seed int) float64 { return 0.1 * float64(network) },
			[]int{5, 5, 5}, 2,
		}, {
			// The rank sums are 13, 12 and 5. The statistic is 2·38/10, and p = exp(−3.8). A
			// difference of rank sums counts above 2.306·√(2·(5·70 − 338)/8) = 3.99. The two that
			// are left are not separated.
			"the third of three is dropped, two that take turns are not", strategy.PeerIrace, 3, 7,
			func(network, seed int) float64 {
				if network == 2 {
					return 0.1
				}
				return turns(network, seed)
			},
			[]int{7, 7, 5}, 1,
		}, {
			"of two, the one that is never better is dropped", strategy.PeerIrace, 2, 7,
			func(network, seed int) float64 { return 0.5 + 0.01*float64(network*seed) },
			[]int{5, 5}, 1,
		}, {
			"all equal", strategy.PeerIrace, 3, 6, func(int, int) float64 { return 0.5 }, []int{6, 6, 6}, 0,
		},
	} {
		t.Run(c.peer+": "+c.name, func(t *testing.T) {
			s, _ := strategyStudy(t, "", func(s *search.Study) { s.Seeds = search.FirstSeeds(c.seeds) })
			recorded := record(s, line(c.networks), func(network, seed, _ int) float64 { return c.at(network, seed) })
			r, err := strategy.Replay(&counted{Strategy: strategy.Peer(c.peer), t: t}, s, recorded,
				strategy.ReplayOptions{Workers: 3})
			if err != nil {
				t.Fatal(err)
			}
			begun := make([]int, c.networks)
			for i, x := range r.State {
				if x.Epoch > 0 {
					begun[i/c.seeds]++
				}
			}
			if !slices.Equal(begun, c.begun) || r.System != recorded[c.best*c.seeds].System {
				t.Errorf("%v trials, %s: %s, want %v", begun, r.System.Label(), r.Reason, c.begun)
			}
			if !strings.HasPrefix(r.Reason, "the rule ends with "+r.System.Label()) {
				t.Errorf("it ends because %q", r.Reason)
			}
		})
	}
}

// TestPeersOfFailures: to diverge is an accuracy of 0, and to fail says nothing.
func TestPeersOfFailures(t *testing.T) {
	t.Parallel()
	s, _ := strategyStudy(t, "", func(s *search.Study) { s.Seeds = search.FirstSeeds(6) })
	for _, name := range strategy.Peers {
		recorded := record(s, line(3), func(network, _, _ int) float64 { return 0.5 + 0.1*float64(network) })
		for i := range 6 { // the first network always fails, and the last one diverges
			recorded[i].Status, recorded[i].Epoch, recorded[i].History = search.Failed, 0, nil
			last := &recorded[12+i]
			last.Status, last.Epoch, last.History = search.Diverged, 0, nil
		}
		d := strategy.Peer(name).Decide(s, recorded)
		if len(d.Next) > 0 || !strings.HasPrefix(d.Reason, "the rule ends with L99M2") {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if strategy.Peer(search.StrategyRace) != nil {
		t.Error("race is no rule of a public tool")
	}
}
