-- prefix, worker, lease ms, model, slots, info → jobs of a predecessor of the same name, given back
local worker = ARGV[2]
local t = now_ms()
local touched = give_back_all(worker, true, t)
drop_worker(worker)
redis.call('ZADD', key('workers'), t + tonumber(ARGV[3]), worker)
redis.call('HSET', key('worker', worker), 'model', ARGV[4], 'slots', ARGV[5], 'info', ARGV[6],
  'drain', '0', 'paused', '0', 'registered_at', t)
return touched
