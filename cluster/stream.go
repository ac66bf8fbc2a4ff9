package cluster

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	handshakeTimeout = 5 * time.Second
	maxHandshakes    = 64  // connections that have not said who they are yet
	maxConnections   = 512 // both ways, all told
	refusalLogEvery  = time.Minute
)

// identity is what a node knows of itself at the moment of a handshake.
type identity struct {
	PeerInfo
	ready bool // takes part in raft
}

// stream is the raft.StreamLayer: TCP with a handshake, so that a node never
// talks raft with a stranger, with a member of another cluster or with whoever
// took over the address of a member.
type stream struct {
	listener net.Listener
	address  advertisedAddr
	self     func() identity
	expect   func(addr string) dfs.NodeID // who should be at addr; "" when not known
	contact  func(dfs.ClusterID)          // told when a cluster wants to talk raft to a node that is not ready
	logger   hclog.Logger

	incoming  chan net.Conn // welcomed, for raft
	greetings chan struct{} // one token for each handshake under way
	ctx       context.Context
	cancel    context.CancelFunc
	tasks     sync.WaitGroup

	mu      sync.Mutex
	open    map[*trackedConn]struct{}
	refused map[string]refusal // by address dialled
}

type refusal struct {
	message string
	logged  time.Time
}

type advertisedAddr string

func (a advertisedAddr) Network() string { return "tcp" }
func (a advertisedAddr) String() string  { return string(a) }

func newStream(listener net.Listener, address string, logger hclog.Logger) *stream {
	s := &stream{
		listener:  listener,
		address:   advertisedAddr(address),
		logger:    logger,
		incoming:  make(chan net.Conn),
		greetings: make(chan struct{}, maxHandshakes),
		open:      make(map[*trackedConn]struct{}),
		refused:   make(map[string]refusal),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// serve begins to welcome connections. Until then they wait in the kernel.
func (s *stream) serve() {
	s.tasks.Go(func() {
		delay := time.Duration(0)
		for {
			conn, err := s.listener.Accept()
			if s.ctx.Err() != nil {
				if conn != nil {
					conn.Close()
				}
				return
			}
			if err != nil { // out of file descriptors, most likely
				delay = min(max(2*delay, 5*time.Millisecond), time.Second)
				s.logger.Error("cannot accept a Raft connection", "error", err, "retry_in", delay)
				sleep(s.ctx, delay)
				continue
			}
			delay = 0
			s.admitConnection(conn)
		}
	})
}

func (s *stream) admitConnection(conn net.Conn) {
	tracked := s.track(conn)
	if tracked == nil {
		return
	}
	select {
	case s.greetings <- struct{}{}:
	default:
		tracked.Close()
		return
	}
	s.tasks.Go(func() {
		keep := s.greet(tracked)
		<-s.greetings
		if !keep {
			tracked.Close()
			return
		}
		select {
		case s.incoming <- tracked:
		case <-s.ctx.Done():
			tracked.Close()
		}
	})
}

// greet performs the accepting side of the handshake and tells whether the
// connection goes on to raft.
func (s *stream) greet(conn net.Conn) bool {
	if conn.SetDeadline(time.Now().Add(handshakeTimeout)) != nil {
		return false
	}
	body, err := readFrame(conn)
	if err != nil {
		s.logger.Debug("no handshake on a Raft connection", "from", conn.RemoteAddr(), "error", err)
		return false
	}
	me := s.self()
	h, err := parseHello(body)
	answer := welcome{info: me.PeerInfo}
	if err != nil {
		answer.status, answer.reason = statusInvalid, err.Error()
	} else {
		answer.status, answer.reason = judge(h, me)
	}
	if answer.status == statusNotReady && h.cluster != "" {
		s.contact(h.cluster)
	}
	if answer.status != statusOK {
		s.logger.Debug("refused a Raft connection", "from", conn.RemoteAddr(), "node", h.id, "reason", answer.reason)
	}
	if _, err := conn.Write(answer.marshal()); err != nil {
		return false
	}
	return answer.status == statusOK && h.kind == kindRaft && conn.SetDeadline(time.Time{}) == nil
}

// judge decides whether a dialler is welcome.
func judge(h hello, me identity) (status, string) {
	switch {
	case h.cluster != "" && me.ClusterID != "" && h.cluster != me.ClusterID:
		return statusWrongCluster, "this is " + string(me.ID) + " of cluster " + string(me.ClusterID)
	case h.expected != "" && h.expected != me.ID:
		return statusWrongNode, "this is " + string(me.ID)
	case h.kind == kindRaft && h.id == me.ID:
		return statusWrongNode, "this node is " + string(me.ID) + " too: no two NameNodes may share an ID"
	case h.kind == kindRaft && !me.ready:
		return statusNotReady, string(me.ID) + " is not admitted to the group yet"
	}
	return statusOK, ""
}

// Dial opens a connection for raft.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	addr := string(address)
	conn, _, err := s.dial(ctx, addr, kindRaft, s.expect(addr))
	if err != nil {
		s.noteRefusal(addr, err)
		return nil, err
	}
	return conn, nil
}

// probe asks who is at addr. expected may be empty.
func (s *stream) probe(ctx context.Context, addr string, expected dfs.NodeID) (PeerInfo, error) {
	conn, w, err := s.dial(ctx, addr, kindProbe, expected)
	if err != nil {
		return PeerInfo{}, err
	}
	conn.Close()
	return w.info, nil
}

func (s *stream) dial(ctx context.Context, addr string, k kind, expected dfs.NodeID) (net.Conn, welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, welcome{}, dfs.Errorf(dfs.Unavailable, "cannot reach the Raft port of a NameNode at %s: %w", addr, err)
	}
	conn := s.track(raw)
	if conn == nil {
		return nil, welcome{}, dfs.Errorf(dfs.Unavailable, "too many Raft connections, or shutting down")
	}
	// Close the connection when ctx ends, whatever the handshake waits for.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	w, err := s.introduce(conn, k, expected)
	if !stop() && err == nil {
		err = dfs.Errorf(dfs.Unavailable, "the NameNode at %s does not answer: %w", addr, ctx.Err())
	}
	if err != nil {
		conn.Close()
		return nil, welcome{}, dfs.Errorf(dfs.CodeOf(err), "%s: %w", addr, err)
	}
	return conn, w, nil
}

// introduce performs the dialling side of the handshake.
func (s *stream) introduce(conn net.Conn, k kind, expected dfs.NodeID) (welcome, error) {
	me := s.self()
	h := hello{kind: k, cluster: me.ClusterID, id: me.ID, instance: me.Instance, expected: expected, peersDigest: me.peersDigest}
	if _, err := conn.Write(h.marshal()); err != nil {
		return welcome{}, dfs.Errorf(dfs.Unavailable, "the connection broke: %w", err)
	}
	body, err := readFrame(conn)
	if err != nil {
		return welcome{}, err
	}
	w, err := parseWelcome(body)
	if err != nil {
		return welcome{}, err
	}
	if w.status != statusOK {
		return welcome{}, dfs.Errorf(w.status.code(), "refused: %s", w.reason)
	}
	return w, nil
}

// noteRefusal logs why a node does not talk to this one, but not at each of
// raft's many attempts.
func (s *stream) noteRefusal(addr string, err error) {
	if dfs.CodeOf(err) == dfs.Unavailable {
		return // down; raft says so itself
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.refused[addr]
	if last.message == err.Error() && time.Since(last.logged) < refusalLogEvery {
		return
	}
	if len(s.refused) > maxConnections {
		clear(s.refused)
	}
	s.refused[addr] = refusal{message: err.Error(), logged: time.Now()}
	s.logger.Warn("a member refuses to talk", "error", err)
}

// Accept returns the next welcomed connection, for raft.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case conn := <-s.incoming:
		return conn, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Addr returns the address that peers dial.
func (s *stream) Addr() net.Addr { return s.address }

// Close closes the listener and all connections, so that raft need not wait
// for a peer that hangs.
func (s *stream) Close() error {
	s.cancel()
	err := s.listener.Close()
	s.mu.Lock()
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for conn := range open {
		conn.Conn.Close()
	}
	return err
}

// wait returns after Close when nothing runs in the background any more.
func (s *stream) wait() { s.tasks.Wait() }

// track makes Close close conn, too. It closes conn at once, and returns nil,
// when there are too many.
func (s *stream) track(conn net.Conn) *trackedConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil || len(s.open) >= maxConnections {
		conn.Close()
		return nil
	}
	t := &trackedConn{Conn: conn, owner: s}
	s.open[t] = struct{}{}
	return t
}

type trackedConn struct {
	net.Conn
	owner  *stream
	closed atomic.Bool
}

func (t *trackedConn) Close() error {
	if !t.closed.CompareAndSwap(false, true) {
		return nil
	}
	t.owner.mu.Lock()
	delete(t.owner.open, t)
	t.owner.mu.Unlock()
	return t.Conn.Close()
}

// sleep waits for d or for the end of ctx, and tells whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
