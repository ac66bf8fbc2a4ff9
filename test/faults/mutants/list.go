package mutants

import "slices"

// Edit replaces a text of a file.
type Edit struct {
	File     string // from the root of the module
	Old, New string // Old occurs exactly once
}

// Mutant is one planted bug.
type Mutant struct {
	Name     string
	Edits    []Edit
	Scenario string // name of the test that must go red; "" when there is none yet
	Symptom  string // regular expression for what that test says then
	Rounds   int    // that the scenario is given to find it
}

// All returns the planted bugs.
func All() []Mutant { return slices.Concat(ofDurability(), ofNameNodes(), ofDeletion()) }

// ofDurability are bugs that lose what was acknowledged, or answer wrongly.
func ofDurability() []Mutant {
	return []Mutant{
		{
			Name: "chunks-without-directory-fsync",
			Edits: []Edit{{
				File: "datanode/chunkstore/disk.go",
				Old:  "return errors.Join(dir.Sync(), dir.Close())",
				New:  "return dir.Close()",
			}},
			Scenario: "TestPowerCut", Symptom: `may only hold|cannot be read|acknowledged and is gone`, Rounds: 4,
		},
		{
			Name: "chunks-without-file-fsync",
			Edits: []Edit{{
				File: "datanode/chunkstore/disk.go",
				Old:  "return f.Sync()",
				New:  "return nil",
			}},
			Scenario: "TestPowerCut", Symptom: `may only hold|cannot be read|acknowledged and is gone`, Rounds: 4,
		},
		{
			Name: "segments-without-fsync",
			Edits: []Edit{{
				File: "datanode/chunkstore/disk.go",
				Old:  "return fdatasync(f)",
				New:  "return nil",
			}},
			Scenario: "TestPowerCut", Symptom: `may only hold|cannot be read|acknowledged and is gone`, Rounds: 4,
		},
		{
			Name: "journal-without-fsync",
			Edits: []Edit{{
				File: "cluster/wal/file.go",
				Old:  "return syncData(f.File)",
				New:  "return nil",
			}},
			Scenario: "TestPowerCut", Symptom: `acknowledged and is gone|acknowledged as deleted and is there|gave up waiting|has ended by itself`, Rounds: 4,
		},
		{
			Name: "log-without-fsync",
			Edits: []Edit{{
				File: "cluster/store.go",
				Old:  "Path: path,",
				New:  "Path: path, NoSync: true,",
			}},
			Scenario: "TestPowerCut", Symptom: `acknowledged and is gone|acknowledged as deleted and is there|gave up waiting|has ended by itself`, Rounds: 4,
		},
		{
			Name: "reads-without-leadership-check",
			Edits: []Edit{{
				File: "cluster/read.go",
				Old:  "return g.reads.join(ctx)",
				New:  "return nil",
			}},
			Scenario: "TestStoppedLeaderWakes", Symptom: `stale`, Rounds: 12,
		},
		{
			Name: "requests-forgotten",
			Edits: []Edit{{
				File: "fsm/machine.go",
				Old:  `ok && e.request != ""`,
				New:  `ok && e.request == "never"`,
			}},
			Scenario: "TestLostAnswers", Symptom: `was refused with (exists|not_found)`, Rounds: 2,
		},
		{
			Name: "wall-clock-in-apply",
			Edits: []Edit{
				{File: "fsm/machine.go", Old: "s.advanceClock(e.stamp)", New: "s.advanceClock(time.Now().UnixMilli())"},
				{File: "fsm/machine.go", Old: "import (\n", New: "import (\n\t\"time\"\n"},
			},
			Scenario: "TestLostAnswers", Symptom: `gave up waiting until all NameNodes know the same`, Rounds: 1,
		},
		{
			Name: "commit-without-asking-datanodes",
			Edits: []Edit{{
				File: "namenode/verify.go",
				Old:  "	inventory := n.askNodes(ctx, nodes, chunks)\n",
				New: `	inventory := &holdings{nodes: nodes, held: make(map[dfs.NodeID]holding)}
	for _, chunk := range chunks {
		for _, id := range chunk.Nodes {
			if inventory.held[id] == nil {
				inventory.held[id] = make(holding)
			}
			inventory.held[id][chunk.ID] = protocol.ChunkInfo{ID: chunk.ID, Size: chunk.Size, CRC32C: chunk.CRC32C}
		}
	}
`,
			}},
			Scenario: "TestLyingClient", Symptom: `was not refused`, Rounds: 1,
		},
	}
}

// ofNameNodes are bugs in what NameNodes agree on, and how they look after it.
func ofNameNodes() []Mutant {
	return []Mutant{
		{
			Name: "reads-of-a-woken-leader",
			Edits: []Edit{{
				File: "cluster/read.go",
				Old:  "return g.reads.join(ctx)",
				New:  "return nil",
			}},
			Scenario: "TestLinearizable", Symptom: `is not linearizable`, Rounds: 1,
		},
		{
			Name: "apply-by-lot",
			Edits: []Edit{
				{File: "fsm/machine.go", Old: "s.advanceClock(e.stamp)", New: "s.advanceClock(e.stamp + rand.Int64N(2))"},
				{File: "fsm/machine.go", Old: "import (\n", New: "import (\n\t\"math/rand/v2\"\n"},
			},
			Scenario: "TestReplay", Symptom: `differ at index`, Rounds: 1,
		},
		{
			Name: "expiry-by-wall-clock",
			Edits: []Edit{{
				File: "namenode/leadership.go",
				Old:  "now.Sub(last.since) > l.n.config.UploadExpiry",
				New:  "l.n.config.Now().Sub(time.UnixMilli(touched)) > l.n.config.UploadExpiry",
			}},
			Scenario: "TestClockJumps", Symptom: `a slow upload while the leader's clock|gave up uploads`, Rounds: 1,
		},
		{
			Name: "full-disk-unnoticed",
			Edits: []Edit{{
				File: "cluster/room.go",
				Old:  "r.full.Store(full)",
				New:  "r.full.Store(false)",
			}},
			Scenario: "TestFullNameNode", Symptom: `gave up waiting|has ended by itself|tells of trouble`, Rounds: 1,
		},
		{
			Name: "snapshot-without-log",
			Edits: []Edit{{
				File: "cluster/group.go",
				Old:  "term < metas[0].Term",
				New:  "term > metas[0].Term && false",
			}},
			Scenario: "TestDamagedStore", Symptom: `starts all the same`, Rounds: 1,
		},
		{
			Name: "join-without-looking",
			Edits: []Edit{
				{File: "cluster/members.go", Old: "return nil, err\n\t\t}\n\t\treturn func() raft.Future {\n\t\t\treturn g.raft.AddNonvoter(raft.ServerID(id)", New: "g.logger.Debug(\"nobody is there\", \"error\", err)\n\t\t}\n\t\treturn func() raft.Future {\n\t\t\treturn g.raft.AddNonvoter(raft.ServerID(id)"},
				{File: "namenode/members.go", Old: "joiner, err := n.group.Probe(c.Context(), command.RaftAddr)\n\tif err != nil {\n\t\treturn reply{}, nobodyThere(&command, err)\n\t}", New: "joiner, err := n.group.Probe(c.Context(), command.RaftAddr)\n\tif err != nil {\n\t\tn.logger.Debug(\"nobody is there\", \"error\", nobodyThere(&command, err))\n\t}"},
			},
			Scenario: "TestMembershipChurn", Symptom: `a join that makes no sense|bad joins made`, Rounds: 1,
		},
	}
}

// ofDeletion are bugs in who may have chunks deleted, and when.
func ofDeletion() []Mutant {
	return []Mutant{
		{
			Name: "orders-of-any-term",
			Edits: []Edit{
				{File: "datanode/order.go", Old: "next.term < now", New: "next.term == 0 && now == 0"},
				{File: "datanode/heartbeat.go", Old: "reply.Term < h.term", New: "reply.Term == 0 && h.term == 0"},
				{File: "datanode/chunkstore/identity.go", Old: "case term < raised.Term:", New: "case term == 0 && raised.Term == 0:"},
			},
			Scenario: "TestOrdersOfAnEarlierTerm", Symptom: `could be read|lies on no DataNode`, Rounds: 1,
		},
		{
			Name: "trims-without-asking-keepers",
			Edits: []Edit{{
				File: "datanode/trim.go",
				Old:  "if err := t.confirm(ctx, wanted); err != nil {",
				New:  "if err := fence(); err != nil {",
			}},
			Scenario: "TestRottenKeepers", Symptom: `could be read|lies on no DataNode|gave up waiting`, Rounds: 1,
		},
		{
			Name: "reclaim-without-grace",
			Edits: []Edit{{
				File: "namenode/reclaim.go",
				Old:  "reclaim.NewGrace(max(0, l.n.config.ReclaimGrace))",
				New:  "reclaim.NewGrace(0)",
			}},
			Scenario: "TestSlowReaderOfDeletedFile", Symptom: `a slow reader of a file that was deleted got`, Rounds: 1,
		},
		{
			Name: "chunks-of-open-uploads-are-garbage",
			Edits: []Edit{
				{File: "fsm/upload.go", Old: "return !open", New: "return open || !open"},
				{
					File: "fsm/node.go",
					Old:  "s.chunks.Set(id, c)\n\tn.hold(id)\n",
					New:  "s.chunks.Set(id, c)\n\ts.settle(id, &c)\n\tn.hold(id)\n",
				},
			},
			Scenario: "TestSpaceComesBack", Symptom: `a slow upload: `, Rounds: 1,
		},
	}
}
