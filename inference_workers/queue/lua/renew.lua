-- prefix, worker, lease ms, info → {registered, drain, paused, server run id, jobs held…}
local worker = ARGV[2]
if not redis.call('ZSCORE', key('workers'), worker) then return {0, '0', '0', ''} end
redis.call('ZADD', key('workers'), now_ms() + tonumber(ARGV[3]), worker)
redis.call('HSET', key('worker', worker), 'info', ARGV[4])
local w = redis.call('HMGET', key('worker', worker), 'drain', 'paused')
local run_id = redis.call('INFO', 'server'):match('run_id:(%w+)') or ''
local answer = {1, w[1], w[2], run_id}
for _, id in ipairs(redis.call('SMEMBERS', key('worker', worker, 'jobs'))) do
  answer[#answer + 1] = id
end
return answer
