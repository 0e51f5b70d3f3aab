# A producer that knows nothing of Waggle: it pushes three texts onto a list. The port may be given.
import sys

import redis

r = redis.Redis(port=int(sys.argv[1]) if len(sys.argv) > 1 else 6379)
r.rpush('tasks', 'Calculate user balance')
r.rpush('tasks', 'Send payment notification')
r.rpush('tasks', 'Update inventory')
