package fsm

import (
	"errors"
	"sync"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// maxRequests is how many answers are remembered. A client that retries later
// than this many mutations after its first try may repeat the effect: see
// docs/consistency.md.
const maxRequests = 1 << 17

// maxClockStep bounds, in milliseconds, how far one entry can move the clock
// forward, so that a NameNode whose wall clock is wrong cannot make everything
// look old at once. maxClock is the end of the year 9999, the last that JSON
// can tell.
const (
	maxClockStep = 60 * 60 * 1000
	maxClock     = 253402300799999
)

// Result is the typed answer of a command that was carried out. Only the
// fields that the command speaks of are set.
type Result struct {
	Index         uint64       // log index of the entry that took effect
	Upload        dfs.UploadID // BeginUpload, AddChunks, Commit; ReserveChunks: the pool
	First         dfs.ChunkID  // first of the allocated chunks
	Count         int          // how many were allocated, from First on
	Path          string       // Commit, PutFile: where the file appeared
	Size          int64        // Commit, PutFile: bytes
	Node          NodeNum      // RegisterNode
	NeedInventory []NodeNum    // Heartbeats: nodes whose reports do not add up
	More          bool         // Purge: there is more to do
}

// Machine owns the State. Apply and Replace are called by one goroutine; the
// other methods by any.
type Machine struct {
	mu     sync.RWMutex
	state  *State
	halted error
	onHalt func(error)
}

// New returns a machine in the state before the first entry. onHalt (may be
// nil) is told, once, when the machine meets an entry of a newer version and
// stops applying: the process should exit and be upgraded.
func New(onHalt func(error)) *Machine {
	if onHalt == nil {
		onHalt = func(error) {}
	}
	return &Machine{state: newState(), onHalt: onHalt}
}

// Outcome is what became of a command: its Result or, when it was refused, an
// error with a code; the state then stayed as it was.
type Outcome struct {
	Result Result
	Err    error
}

// Apply carries out the log entry at index, which asks for one command, and
// returns its outcome. The same request ID gets the first answer again.
func (m *Machine) Apply(index uint64, data []byte) (Result, error) {
	outcomes, err := m.ApplyGroup(index, data)
	if err != nil {
		return Result{}, err
	}
	return outcomes[0].Result, outcomes[0].Err
}

// ApplyGroup is Apply for an entry that may ask for several commands. They are
// carried out one after the other, each with an outcome of its own; nobody sees
// the state between two of them. An error is about the entry as a whole, of
// which nothing was carried out then.
func (m *Machine) ApplyGroup(index uint64, data []byte) ([]Outcome, error) {
	if err := m.Halted(); err != nil {
		return nil, err
	}
	entries, err := decodeEntries(data)
	if errors.Is(err, errUnknownCommand) {
		return nil, m.halt(dfs.Errorf(dfs.Internal, "log entry %d: %w", index, err))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.applied = index
	if err != nil {
		return nil, dfs.Errorf(dfs.Invalid, "log entry %d: %w", index, err)
	}
	outcomes := make([]Outcome, len(entries))
	for i := range entries {
		outcomes[i].Result, outcomes[i].Err = m.state.execute(index, entries[i])
	}
	return outcomes, nil
}

// halt stops the machine for err and returns it. onHalt is called without the
// lock: it may want to read.
func (m *Machine) halt(err error) error {
	m.mu.Lock()
	m.halted = err
	m.mu.Unlock()
	m.onHalt(err)
	return err
}

// Halted returns why the machine stopped applying, nil while it goes on. The
// state of a halted machine lags behind the log, so no snapshot may be made of
// it.
func (m *Machine) Halted() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.halted
}

// execute gives a known request its first answer again and carries out any
// other.
func (s *State) execute(index uint64, e entry) (Result, error) {
	s.advanceClock(e.stamp)
	if known, ok := s.requests.Get(e.request); ok && e.request != "" {
		return known.answer(e.command.number())
	}
	result, err := e.command.apply(s)
	if err != nil {
		result = Result{}
	} else {
		result.Index = index
	}
	if e.request != "" {
		s.remember(e.request, index, e.command.number(), result, err)
	}
	return result, err
}

func (s *State) advanceClock(stamp int64) {
	stamp = min(stamp, maxClock)
	if s.clock == 0 {
		s.clock = max(stamp, 1)
		return
	}
	s.clock = max(s.clock, min(stamp, s.clock+maxClockStep))
}

func (s *State) remember(id dfs.RequestID, index uint64, command number, result Result, err error) {
	r := &request{index: index, command: command, result: result}
	if err != nil {
		r.err = &dfs.Error{Code: dfs.CodeOf(err), Message: dfs.MessageOf(err)}
	}
	s.requests.Set(id, r)
	s.requestOrder.Set(s.nextTurn(), id)
	for s.requests.Len() > maxRequests {
		_, oldest, _ := s.requestOrder.PopMin()
		s.requests.Delete(oldest)
	}
}

// nextTurn returns the place in the order of forgetting for a new request.
// Where the order begins does not matter, so snapshots need not say.
func (s *State) nextTurn() uint64 {
	newest, _, _ := s.requestOrder.Max()
	return newest + 1
}

func (r *request) answer(command number) (Result, error) {
	if r.command != command {
		return Result{}, dfs.Errorf(dfs.Invalid, "this request ID was used for another kind of call; take a new one for each mutation")
	}
	if r.err != nil {
		return Result{}, r.err
	}
	return r.result, nil
}

// Read calls fn with the state, which fn may look at until it returns.
func (m *Machine) Read(fn func(*State)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	fn(m.state)
}

// Freeze returns a copy of the state that never changes, in O(1).
func (m *Machine) Freeze() *State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.copy()
}

// Replace makes state, from ReadSnapshot, the machine's own.
func (m *Machine) Replace(state *State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
}

func (c *InitCluster) apply(s *State) (Result, error) {
	if s.clusterID == "" {
		s.clusterID = c.ClusterID
	}
	return Result{}, nil
}
